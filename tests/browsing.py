"""A headless Chromium for tests that look at pages; without one they are skipped, unless the environment forbids it."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Set where a browser was installed for the tests: there they must not be skipped.
DEMANDED = "JAXCNNBP_BROWSER_TESTS"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage"
)


class Browser:
    """A page in a window of a given width, and what the tests ask of it."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        self.console()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def console(self) -> list[str]:
        """What the page complained of since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def fetched(self) -> list[str]:
        """Everything that the page loaded beside itself."""
        return self.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def nameless(self) -> list[str]:
        """Roles of what can be used but has no name for those who hear the page."""
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        used = {"button", "textbox", "spinbutton", "combobox", "checkbox", "slider", "grid", "gridcell", "link"}
        live = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in used]
        return [node["role"]["value"] for node in live if not node.get("name", {}).get("value")]

    def save_picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, chromedriver = _found("chromium", "chromium-browser", "google-chrome"), _found("chromedriver")
    if not (chromium and chromedriver):
        if os.environ.get(DEMANDED):
            pytest.fail(f"{DEMANDED} is set, but chromium and chromedriver are not on the path.")
        pytest.skip("needs chromium and chromedriver on the path")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    from selenium.webdriver.chrome.service import Service

    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield Browser(driver)
    driver.quit()


def _found(*names: str) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)
