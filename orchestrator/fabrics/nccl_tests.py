"""Output of NVIDIA's nccl-tests (``all_reduce_perf`` and its like), as users save it: a fabric of their own.

What is read is the number of ranks (the lines ``#  Rank  0 ... device``), which collective it was, by the line that
says so or else by the file's name, and of each row its size and its time out of place. Sizes of 0 bytes are passed
over; of a size that comes again (``-N``, several runs in one file) the least time counts. A file may hold the output of
several programs, one after another; a folder is all the ``.txt``, ``.log`` and ``.out`` files in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import field
from pathlib import Path

from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError, raise_all
from foundation.files import names_in, read_text
from foundation.printable import brief
from foundation.records import dataclass
from orchestrator.fabrics.fabric import Curve, Fabric, whole

_WHAT = "output of nccl-tests"
_PROGRAMS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
}
_PROGRAM = re.compile("|".join(_PROGRAMS))
_RANK = re.compile(r"#\s+Rank\s+\d+\s")
_STARTS = "# nThread"
_NAMES = "Collective test starting:"
_SUFFIXES = (".txt", ".log", ".out")
_LARGEST_BYTES = 2**50
_LONGEST_US = 1e9


@dataclass(slots=True)
class _Test:
    """One program's output as far as it is read. `from_end`: which column, counted from a row's end, has its time."""

    line: int
    collective: str | None = None
    ranks: int = 0
    from_end: int | None = None
    faulty: bool = False
    least_ns: dict[int, float] = field(default_factory=dict)

    @property
    def untouched(self) -> bool:
        """Whether nothing of the program has come yet."""
        return self.ranks == 0 and self.from_end is None and not self.faulty


def is_output(path: Path, text: str) -> bool:
    """Whether the content of a file is such output, or meant as it, and no JSON."""
    return path.suffix != ".json" and not text.lstrip().startswith(("{", "["))


def read_output(path: Path, text: str) -> Fabric:
    """Return the fabric that `text`, the content of `path`, measures. Raises `UserError`."""
    problems: list[UserError] = []
    tests = list(_tests(path, text, problems))
    raise_all(problems)
    return _fabric(path, [(path, test) for test in tests])


def read_folder(path: Path) -> Fabric:
    """Return the fabric that all output in a folder measures. Raises `UserError`."""
    found: list[tuple[Path, _Test]] = []
    problems: list[UserError] = []
    for name in names_in(path):
        if name.endswith(_SUFFIXES):
            one = path / name
            found += [(one, test) for test in _tests(one, read_text(one, _WHAT), problems)]
    raise_all(problems)
    if not found:
        fix = f"put output of nccl-tests there, in files that end in {', '.join(_SUFFIXES)}"
        raise UserError("no output of nccl-tests in the folder", path=path, fix=fix)
    return _fabric(path, found)


def _fabric(path: Path, tests: Sequence[tuple[Path, _Test]]) -> Fabric:
    """Join the tests, of which each is another collective or number of ranks."""
    curves: dict[str, dict[int, Curve]] = {}
    where: dict[tuple[str, int], tuple[Path, int]] = {}
    problems = []
    for source, test in tests:
        collective = test.collective or ""
        first = where.setdefault((collective, test.ranks), (source, test.line))
        if first != (source, test.line):
            what = f"{collective} over {test.ranks} ranks is in {first[0].name}, line {first[1]}, too"
            problems.append(UserError(what, path=source, line=test.line, fix="leave one out"))
        curves.setdefault(collective, {})[test.ranks] = whole(sorted(test.least_ns.items()), "nccl-tests")
    raise_all(problems)
    origin = f"nccl-tests, {path.name}"
    return Fabric(path.stem, path.stem, origin, curves, {"nccl-tests": origin})


def _tests(path: Path, text: str, problems: list[UserError]) -> Iterable[_Test]:
    """Return the tests in a text; what is wrong goes to `problems`."""
    tests: list[_Test] = []
    named: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if _NAMES in line:
            named = _program(line.split(_NAMES, 1)[1])
        elif line.startswith(_STARTS) or not tests:
            if tests and tests[-1].untouched:
                tests.pop()  # what a shell or a scheduler said before
            tests.append(_Test(number, named or _program(path.name)))
            named = None
        try:
            _take(tests[-1] if tests else None, line)
        except ValueError as error:
            fix = "give the program's output as it is"
            problems.append(UserError(str(error), path=path, line=number, fix=fix))
            tests[-1].faulty = True
    if not tests:
        problems.append(UserError("empty", path=path, fix="give the program's output as it is"))
    for test in tests:
        problems += [UserError(what, path=path, line=test.line, fix=fix) for what, fix in _missing(test)]
    return tests


def _program(text: str) -> str | None:
    """Return the collective whose program a text names."""
    found = _PROGRAM.search(text.lower())
    return None if found is None else _PROGRAMS[found.group()]


def _take(test: _Test | None, line: str) -> None:
    """Take one line's part; a row that is none is a `ValueError`."""
    words = line.split()
    if test is None or not words:
        return
    if not line.lstrip().startswith("#"):
        # Ranks of a job write what concerns them between the rows, and libraries say things of their own.
        if words[0].isdigit():
            _take_row(test, words)
    elif _RANK.match(line.lstrip()):
        test.ranks += 1
    elif "size" in words and "time" in words:
        test.from_end = len(words) - words.index("time")


def _take_row(test: _Test, words: Sequence[str]) -> None:
    if test.from_end is None:
        raise ValueError("a row before the line that names the columns")
    size = whole_number(words[0], 0, _LARGEST_BYTES)
    us = decimal_number(words[-test.from_end]) if len(words) > test.from_end else None
    if size is None or us is None:
        raise ValueError(f"{brief(' '.join(words))} has no size and time in the columns of those names")
    if not 0 < us <= _LONGEST_US:
        raise ValueError(f"a time of {words[-test.from_end]} us is not above 0")
    if size:
        test.least_ns[size] = min(us * 1000, test.least_ns.get(size, us * 1000))


def _missing(test: _Test) -> Iterable[tuple[str, str]]:
    """Yield what a test lacks, and what would be right."""
    if test.collective is None:
        names = ", ".join(_PROGRAMS)
        yield "which collective this is stands nowhere", f"name the file after its program, one of {names}"
    if test.ranks < 2:
        what = f"{test.ranks} ranks" if test.ranks else "no line of a rank (#  Rank  0 ...)"
        yield what, "give the output of two ranks or more, its head included"
    if not test.least_ns and not test.faulty:
        yield "no row of a size and its time", "give the program's output as it is"
