"""A folder that somebody else made and may go on changing: entered once, its files read and written without links.

Whoever may write in a spool folder can put there what they like, also while it is served: links to files that only the
other side may write, pipes that never end, folders where files belong. So a folder is opened once, and what is in it is
reached through that, never through a path that may lead somewhere else by now.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import TracebackType

MOST_BYTES = 1 << 28
"""The most that is read of one file (256 MiB)."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class GuardedFolder:
    """One folder, held open. Making one raises `OSError` for anything that is not a folder, a link to one included."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    @property
    def working_folder(self) -> str:
        """A path by which a program of ours can enter this very folder, whatever its name leads to by now."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def read(self, name: str) -> bytes:
        """Return the content of an ordinary file; `OSError` for anything else, and for more than 256 MiB."""
        with os.fdopen(os.open(name, _READ, dir_fd=self._descriptor), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(f"{name} is no ordinary file")
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise OSError(f"{name} is larger than {MOST_BYTES} bytes")
        return content

    def write(self, name: str, text: str) -> None:
        """Write a new file in place of whatever has the name. Raises `OSError`."""
        self._remove(name)
        with os.fdopen(os.open(name, _WRITE, 0o666, dir_fd=self._descriptor), "w", encoding="utf-8") as stream:
            stream.write(text)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._descriptor)

    def __enter__(self) -> GuardedFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=self._descriptor)
