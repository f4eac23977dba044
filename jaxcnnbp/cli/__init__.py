"""The command line: `jaxcnnbp` and `python -m jaxcnnbp`; parse, call one public function, print."""

import importlib.util

_MISSING = [package for package in ("click", "rich") if importlib.util.find_spec(package) is None]
if _MISSING:
    # Raised while the entry point imports this package, where no function of ours could catch it.
    raise SystemExit(f'The command line needs {" and ".join(_MISSING)}: pip install "jaxcnnbp[cli]".')
