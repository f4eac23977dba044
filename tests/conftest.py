"""A strict session: no quiet promotion of dtypes or ranks; warnings are errors by `pyproject.toml`."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax._src import compiler

# Tests of several folders share modules of this one; with `--import-mode=importlib` no folder is on the path by itself.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("check")

from running import CACHE, HALF_WRITTEN, QUICK  # noqa: E402 - found on the path above


def pytest_configure(config: pytest.Config) -> None:
    """What every test runs under; programs are compiled once for all workers and for the next run."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # Tracing makes a million objects that stay; to look through them all again and again takes a tenth of the time.
    gc.set_threshold(50_000, 20, 20)
    config.addinivalue_line("filterwarnings", f"ignore:{HALF_WRITTEN}:UserWarning")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser takes seconds to start, and so does what is looked at in it."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """LLVM writes plain machine code, from loops put down directly, in a third of the time: for what programs compute,
    put together from rules.

    The rules themselves, alone and in every form and type, are compiled as users have them compiled.
    """
    with pytest.MonkeyPatch.context() as patch:
        # JAX has options for one program (`jax.jit(compiler_options=...)`) and none for all.
        usual = compiler.get_compile_options

        def with_quick(*args: object, env_options_overrides: dict | None = None, **more: object) -> object:
            return usual(*args, env_options_overrides=QUICK | (env_options_overrides or {}), **more)

        patch.setattr(compiler, "get_compile_options", with_quick)
        yield


@pytest.fixture(scope="module", autouse=True)
def _kept_apart() -> None:
    """A clock that first empties the garbage need not look through what earlier modules left in JAX's caches."""
    gc.freeze()


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 and complex128 for one test."""
    with jax.enable_x64(True):
        yield
