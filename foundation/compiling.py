"""Functions that are compiled where numba is installed (the extra `fast`), and run as plain Python where it is not.

A compiled function is its own twin: the same source, which has nothing but numbers and arrays in it, gives the same
results both ways, to the bit. So modules with such functions are loaded only where they are used: importing one imports
numba. They make no arrays, and copy none: memory is not counted (`_nrt`), since handing over a state of many arrays
would cost thirty times as much as most functions do with it.

What was compiled is kept on disk, one folder for each state of the sources: what one function calls is in its code, and
numba itself does not notice when only that has changed.

``ORRERY_COMPILE=0`` in the environment turns compiling off.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])
SWITCH = "ORRERY_COMPILE"
_ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    "foundation/compiling.py",
    "foundation/sorting.py",
    "trace_gen/attention_numbers.py",
    "trace_gen/compiled_attention.py",
    "trace_gen/**/compiled.py",
    "trace_gen/perf_models/*/numbers.py",
    "orchestrator/engine/compiled/*.py",
    "orchestrator/requests/generators/compiled.py",
)
"""Where compiled functions are, and what they take from elsewhere: other functions, and the values of constants."""


@cache
def compiles() -> bool:
    """Whether `compiled` compiles; asking loads nothing."""
    return os.environ.get(SWITCH, "1") != "0" and find_spec("numba") is not None


def compiled(function: Function) -> Function:
    """Return `function` compiled, or as it is.

    Floating-point operations keep their order and are never joined; a division by zero is not noticed.
    """
    if not compiles():
        return function
    return cast(Function, _numba().njit(cache=True, error_model="numpy", _nrt=False)(function))


def inner(function: Function) -> Function:
    """Return `function` as `compiled` does, for compiled functions to call only: that takes half as long to compile."""
    if not compiles():
        return function
    alone = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Function, _numba().njit(cache=True, error_model="numpy", _nrt=False, **alone)(function))


def making(function: Function) -> Function:
    """Return `function` as `compiled` does, for one that makes arrays."""
    if not compiles():
        return function
    return cast(Function, _numba().njit(cache=True, error_model="numpy")(function))


@cache
def _numba() -> Any:
    """Return the module, which keeps what it compiles in the folder of these sources."""
    import numba

    config: Any = numba.config
    if not os.environ.get("NUMBA_CACHE_DIR"):
        folder = _folder()
        _make(folder)
        config.CACHE_DIR = str(folder)
    return numba


def is_compiled(function: str) -> bool:
    """Whether a function, ``module.function`` without packages, has been compiled already; asking loads nothing.

    What was not, takes half a minute when it is called first.
    """
    return any(_folder().glob(f"*/{function}-*.nbc"))


def _folder() -> Path:
    """Return the folder of what these sources are compiled to; it need not be there."""
    stamp = blake2b(digest_size=8)
    for pattern in SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            text = path.read_bytes()
            stamp.update(b"%d:%s" % (len(text), text))
    checkout = (_ROOT / "pyproject.toml").exists() and os.access(_ROOT, os.W_OK)
    kept = _ROOT / ".compiled" if checkout else Path.home() / ".cache" / "orrery" / "compiled"
    return kept / stamp.hexdigest()


def _make(folder: Path) -> None:
    """Make the folder, and delete those of other sources beside it."""
    if folder.exists():
        return
    with suppress(OSError):
        for other in folder.parent.glob("*"):
            shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True)
