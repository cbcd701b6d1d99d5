"""The errors that reach a user, each one line: what is wrong, where, and what would be right.

Commands turn a `UserError` into exit code 2 and a `SimulationError` into exit code 1, both without a
traceback (see `foundation.commands`). Anything else that escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from foundation.printable import printable, shorten

_REPORTED = 20
"""Problems that one error tells; of more it says how many."""


class OrreryError(Exception):
    """Base of every error that is explained to the user rather than shown as a traceback."""

    exit_code = 1


class UserError(OrreryError):
    """The input is wrong: a file, a line, a field or a flag.

    `what` says what is wrong (with the offending value), `fix` what would be right, and `path`, `line`
    (1-based) and `field` where. They are joined into one line: ``where: what; fix``; whatever is not printable in them
    (names and values are others') is escaped, and a name that is too long is cut. `problems` are those that it tells:
    itself, or several (`raise_all`).
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        fix: str = "",
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.what, self.fix, self.path, self.line, self.field = what, fix, path, line, field
        self.problems: tuple[UserError, ...] = (self,)
        where = str(path) if path is not None else ""
        if line is not None:
            where += f", line {line}" if where else f"line {line}"
        if field is not None:
            named = shorten(field)
            where += f", {named}" if where else named
        message = f"{where}: {what}" if where else what
        super().__init__(printable(f"{message}; {fix}" if fix else message))


class SimulationError(OrreryError):
    """A simulation cannot be completed: a deadlock, a backend that failed, a graph that cannot run."""


class InternalError(Exception):
    """An invariant of our own is broken. Never caught: the traceback is what we want to see."""


def raise_all(problems: Sequence[UserError]) -> None:
    """Raise the problems, if there are any, as one error; a path that all share is said once."""
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    paths = {problem.path for problem in problems}
    shared = paths.pop() if len(paths) == 1 else None
    told = list(dict.fromkeys(str(one) if shared is None else str(_without_path(one)) for one in problems))
    more = f"; and {len(told) - _REPORTED} more" if len(told) > _REPORTED else ""
    error = UserError("; ".join(told[:_REPORTED]) + more, path=shared)
    error.problems = tuple(problems)
    raise error


def _without_path(problem: UserError) -> UserError:
    return UserError(problem.what, fix=problem.fix, line=problem.line, field=problem.field)


def near_names(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``did you mean a, b?`` for the known names closest to `name`, else all of them in short form."""
    names = sorted(known)
    folded = {candidate.casefold(): candidate for candidate in names}
    wanted = shorten(name).casefold()  # comparing takes time in proportion to its length
    from difflib import get_close_matches

    close = [folded[key] for key in get_close_matches(wanted, folded, n=limit, cutoff=0.5)]
    if close:
        return f"did you mean {', '.join(close)}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown or 'none'}"
