"""The small corpus of each target: files in tests/fuzz/corpus/READER, chosen so that together they go most ways."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from benchmarks.fuzz.target import Target, check

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fuzz" / "corpus"
MOST_FILES, MOST_BYTES, SHORT = 16, 12_000, 4096
"""Of one target: files that are kept, their bytes in all, and the length up to which a found input is looked at."""
MENDED = "mended-"
"""Begins the names of inputs that once were findings; they always stay."""


Step = tuple[str, int, int]
"""A step from one line to another of a file; being refused or read is one, too."""
_ENDS: tuple[Step, Step] = (("refused", 0, 0), ("read", 0, 0))


def files(reader: str) -> list[Path]:
    """Return the corpus of one target, in order."""
    return sorted(path for path in (FOLDER / reader).iterdir() if path.is_file())


def choose(target: Target, candidates: Iterable[bytes]) -> list[bytes]:
    """Return few inputs that go every way that the short ones among `candidates` go, as far as there is room."""
    short = sorted({content for content in candidates if len(content) <= SHORT})
    reached = {content: _steps(target, content) & _steps(target, content) for content in short}
    chosen: list[bytes] = []
    covered: set[Step] = set()
    room = MOST_BYTES
    while reached and len(chosen) < MOST_FILES:
        best = max(reached, key=lambda content: _worth(reached[content] - covered, content))
        fresh = reached.pop(best) - covered
        if not fresh:
            break
        if len(best) <= room:
            chosen.append(best)
            covered |= fresh
            room -= len(best)
    return chosen


def _worth(fresh: set[Step], content: bytes) -> tuple[bool, int, int, bytes]:
    """Order inputs: the first read and the first refused, then those with most new steps, then short ones."""
    return not fresh.isdisjoint(_ENDS), len(fresh), -len(content), content


def _steps(target: Target, content: bytes) -> set[Step]:
    """Return the steps between lines of the project that reading `content` takes; none where it is a finding.

    Those that it does not take every time are not its own: what it is the first to import, what is collected meanwhile.
    """
    found: set[Step] = set()
    inside = str(ROOT)

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(inside):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            found.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    with TemporaryDirectory() as folder:
        before = sys.gettrace()
        sys.settrace(enter)
        try:
            error = check(target, content, Path(folder))
        except Exception:
            return set()
        finally:
            sys.settrace(before)
    return found | {_ENDS[error is None]}


def contents(folder: Path) -> Iterator[bytes]:
    """Yield what the files of a folder hold; nothing where there is no folder."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file():
            yield path.read_bytes()
