"""The .et files of all ranks, appended to in turns and put in place together.

They are written in a temporary folder beside them (`foundation.temporaries`), which only this user may enter. Any
number of ranks: a file is open only while something is appended to it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from foundation import temporaries
from foundation.files import explained


class RankFiles:
    """``PREFIX.<rank>.et`` for ranks ``0 .. ranks - 1``; a context that renames them into place, or leaves nothing.

    Whatever the system refuses, a full disk at any moment included, is a `UserError`.
    """

    def __init__(self, prefix: str | Path, ranks: int) -> None:
        self._prefix = Path(prefix)
        self.paths = [Path(f"{prefix}.{rank}.et") for rank in range(ranks)]
        self._folder: Path
        self._held: int

    def __enter__(self) -> RankFiles:
        with explained(self._prefix):
            self._prefix.parent.mkdir(parents=True, exist_ok=True)
            temporaries.sweep(self._prefix)
            self._held, self._folder = temporaries.make_folder(self._prefix)
        try:
            self.append(range(len(self.paths)), b"")
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, ranks: Iterable[int], content: bytes) -> None:
        """Append `content` to the files of `ranks`."""
        with explained(self._prefix):
            for rank in ranks:
                with (self._folder / str(rank)).open("ab") as stream:
                    stream.write(content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with explained(self._prefix):
                    for rank, path in enumerate(self.paths):
                        (self._folder / str(rank)).replace(path)
        finally:
            self._discard()

    def _discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._held)
