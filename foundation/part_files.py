"""Results that are written as they come: ``NAME.part`` until they are whole, then ``NAME``.

    with PartFile("out.csv") as part:      # refuses at once what cannot be written
        writer = csv.writer(part)          # anything that writes to a stream writes to a PartFile
        writer.writerow(row)
        part.flush()                       # what is written so far is on disk
                                           # the end of the block renames; an exception keeps out.csv.part

After a failure the file stays, and the error says so; the next run to the same name removes it, or goes on from where
it is known to be good (`resume_at`). A part file is never a link, and belongs to one program at a time.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from foundation.errors import UserError
from foundation.files import cannot_write, explained, open_descriptor, prepare
from foundation.temporaries import lock

SUFFIX = ".part"
_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class PartFile:
    """One result being written. `path` is its name when whole, `part` its name until then.

    Making one creates the folder and the file, so that a place that cannot be written is refused before any work is
    done; it raises `UserError`, also when another program is writing the same result. `mode` is ``w`` (UTF-8 text) or
    ``wb``. `resume_at`: keep the first so many bytes of an existing part file and write after them.
    """

    def __init__(self, path: str | Path, mode: str = "w", *, resume_at: int | None = None) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(f"{self.path.name}{SUFFIX}")
        self._failed: UserError | None = None
        with explained(self.path):
            prepare(self.path)
            descriptor = self._create() if resume_at is None else self._reopen(resume_at)
            self._held: int | None = os.dup(descriptor)
            self._stream: IO[Any] = open_descriptor(descriptor, mode)

    def write(self, content: Any) -> int:
        """Write text or bytes. A `UserError` says where what was written so far is kept; so does every later write."""
        if self._failed is not None:
            raise self._failed
        try:
            return self._stream.write(content)
        except OSError as error:
            raise self._fail(error) from error

    def flush(self) -> None:
        """Hand what is written to the file system; see `write` for errors."""
        if self._failed is not None:
            raise self._failed
        try:
            self._stream.flush()
        except OSError as error:
            raise self._fail(error) from error

    def commit(self) -> Path:
        """Close the file and give it its name; return it. Raises `UserError` as `write` does."""
        try:
            self.flush()
            self._stream.close()
            self.part.replace(self.path)
        except OSError as error:
            raise self._fail(error) from error
        finally:
            self.close()
        return self.path

    def close(self) -> None:
        """Stop without naming the result: what is written stays as `part`, unless that is nothing."""
        if self._held is None:
            return
        try:
            self._stream.close()
        except OSError as error:
            self._failed = self._failed or self._explain(error)
        self._remove_empty(os.fstat(self._held))
        os.close(self._held)
        self._held = None

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._failed is not None:
            self.close()
        elif self._held is not None:
            self.commit()

    def _create(self) -> int:
        """Make a new part file in place of one that a failed run has left."""
        if self.part.is_file() or self.part.is_symlink():
            self._check_free()
            self.part.unlink()
        descriptor = os.open(self.part, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        self._lock(descriptor)
        return descriptor

    def _reopen(self, size: int) -> int:
        descriptor = os.open(self.part, _FLAGS)
        self._lock(descriptor)
        if not self.part.is_file() or os.fstat(descriptor).st_size < size:
            os.close(descriptor)
            raise UserError(f"fewer than {size} bytes are there", path=self.part, fix="start anew instead of resuming")
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, 0, os.SEEK_END)
        return descriptor

    def _check_free(self) -> None:
        if not self.part.is_symlink():
            descriptor = os.open(self.part, _FLAGS)
            self._lock(descriptor)
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        if not lock(descriptor):
            os.close(descriptor)
            raise UserError("another program is writing this result", path=self.part, fix="name another file, or wait")

    def _fail(self, error: OSError) -> UserError:
        self._failed = self._explain(error)
        return self._failed

    def _explain(self, error: OSError) -> UserError:
        return cannot_write(error, self.path, f" (what was written is kept in {self.part})")

    def _remove_empty(self, mine: os.stat_result) -> None:
        """Remove a part into which nothing was written, if it is still there and still ours."""
        try:
            if mine.st_size == 0 and os.path.samestat(mine, self.part.lstat()):
                self.part.unlink()
        except OSError:
            return
