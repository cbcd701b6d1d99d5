"""Functions that are compiled where numba is installed (the extra `fast`), and run as plain Python where it is not.

A compiled function is its own twin: the same source, which has nothing but numbers and arrays in it, gives the same
results both ways, to the bit. So modules with such functions are loaded only where they are used: importing one imports
numba.

``ORRERY_COMPILE=0`` in the environment turns compiling off.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])
SWITCH = "ORRERY_COMPILE"


@cache
def compiles() -> bool:
    """Whether `compiled` compiles; asking loads nothing."""
    return os.environ.get(SWITCH, "1") != "0" and find_spec("numba") is not None


def compiled(function: Function) -> Function:
    """Return `function` compiled, or as it is. What was compiled once is kept on disk, beside its source.

    Floating-point operations keep their order and are never joined; a division by zero is not noticed.
    """
    if not compiles():
        return function
    import numba

    made: Any = numba.njit(cache=True, error_model="numpy")(function)
    return cast(Function, made)
