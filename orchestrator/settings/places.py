"""Where the values that a run was given stand, for errors that are found when engines are put together.

Such an error knows a setting by its flag, of several engines by its place in the list (``engines[2].npu_num``), but not
who gave the value. With the layers that the run was read from, it says the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from foundation.errors import UserError, raise_all
from foundation.settings.reading import Layers, Values

ENGINES = "engines"
_NAMED = re.compile(rf"(?:--|{ENGINES}\[(\d+)\]\.?)(\w*)")

_SAME = {
    "npu_num": "tensor_parallel_size",
    "npu_group": "pipeline_parallel_size",
    "ep_size": "enable_expert_parallel",
    "fp": "dtype",
}
"""Settings that errors name, and by which others they may have been given."""


def of_engine(place: int, problem: UserError) -> UserError:
    """Return what is wrong with the engine at `place` in the list; a problem of a file of its own keeps its place."""
    engine = f"{ENGINES}[{place}]"
    if problem.path is not None:
        return UserError(str(problem), field=engine)
    name = (problem.field or "").removeprefix("--")
    return UserError(problem.what, fix=problem.fix, field=f"{engine}.{name}" if name else engine)


@contextmanager
def located_in(layers: Layers) -> Iterator[None]:
    """Have a `UserError` that names a setting say where it was given."""
    try:
        yield
    except UserError as error:
        found = [_located(one, layers) for one in error.problems]
        if found == list(error.problems):
            raise
        raise_all(found)


def _located(problem: UserError, layers: Layers) -> UserError:
    named = _NAMED.fullmatch(problem.field or "")
    if problem.path is not None or named is None:
        return problem
    entries = layers.lists.get(ENGINES, ())
    place = int(named[1]) if named[1] is not None else 0 if len(entries) == 1 else len(entries)
    entry: Values = entries[place] if place < len(entries) else {}
    stated = {**layers.file, **entry, **layers.flags}
    given = stated.get(named[2]) or stated.get(_SAME.get(named[2], ""))
    if given is not None:
        return given.problem(problem.what, problem.fix)
    lines = [one.line for one in entry.values() if one.line is not None]
    if not lines:
        return problem
    path = next(iter(entry.values())).path
    return UserError(problem.what, fix=problem.fix, path=path, line=min(lines), field=problem.field)
