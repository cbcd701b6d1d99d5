"""The .et files of all ranks, appended to in turns and put in place together.

Any number of ranks: a file is open only while something is appended to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from foundation.errors import UserError


class RankFiles:
    """``PREFIX.<rank>.et`` for ranks ``0 .. ranks - 1``; a context that renames them into place, or leaves nothing."""

    def __init__(self, prefix: str | Path, ranks: int) -> None:
        self.paths = [Path(f"{prefix}.{rank}.et") for rank in range(ranks)]
        self._parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in self.paths]

    def __enter__(self) -> RankFiles:
        try:
            for part in self._parts:
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(b"")
        except OSError as error:
            self._discard()
            raise UserError(
                f"cannot write: {error.strerror}", path=error.filename, fix="name a writable folder"
            ) from error
        return self

    def append(self, ranks: Iterable[int], content: bytes) -> None:
        """Append `content` to the files of `ranks`."""
        try:
            for rank in ranks:
                with self._parts[rank].open("ab") as stream:
                    stream.write(content)
        except OSError as error:
            raise UserError(f"cannot write: {error.strerror}", path=error.filename) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        for part, path in zip(self._parts, self.paths, strict=True):
            part.replace(path)

    def _discard(self) -> None:
        for part in self._parts:
            part.unlink(missing_ok=True)
