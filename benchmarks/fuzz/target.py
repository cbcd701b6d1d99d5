"""What a target is, and what is asked of it for one input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from foundation.errors import UserError
from foundation.registry import Registry

LONGEST_ERROR = 5000
"""Characters: twenty problems of a file, each with its place and its value cut short."""


class FindingError(Exception):
    """An error that is not as errors should be."""


@dataclass(frozen=True)
class Target:
    """A reader under test. `read` is given the path of a file with the input, in a folder of its own.

    `ends`: what it may raise, beside giving a value. `mutate` makes an input from another one; None takes the tokens of
    a text (see `mutating`). `words`: what inputs are made of, beside what the corpus holds.
    """

    about: str
    read: Callable[[Path], object]
    file_name: str = "input"
    ends: tuple[type[Exception], ...] = (UserError,)
    mutate: Callable[[bytes, Random], bytes] | None = None
    words: tuple[bytes, ...] = ()


targets: Registry[Target] = Registry("reader", package="benchmarks.fuzz.readers")


def check(target: Target, content: bytes, folder: Path) -> str | None:
    """Read `content` in `folder`, which is emptied before; return the error that it met, or None.

    Whatever else the reader raises is let through, and an error that is not one short line is a `FindingError`.
    """
    _empty(folder)
    path = folder / target.file_name
    path.write_bytes(content)
    try:
        target.read(path)
    except target.ends as error:
        said = str(error).replace(str(folder), "")
        if not said.isprintable():
            raise FindingError(f"an error of more than one line: {said[:200]!r}") from error
        if len(said) > LONGEST_ERROR:
            raise FindingError(f"an error of {len(said)} characters: {said[:200]}") from error
        return said
    return None


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
