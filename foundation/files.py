"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from foundation.errors import UserError


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it over `path` when the block ends without an error.

    Folders are made as needed. A folder that cannot be made or written is a `UserError` naming it, and so is a `path`
    that is a folder or a device; when the block raises, nothing is left behind.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            raise UserError("is not an ordinary file: it would be replaced", path=target, fix="name a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise UserError(
            f"cannot write: {error.strerror}", path=target, fix="name a folder that can be written"
        ) from error
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(descriptor, mode, encoding=encoding, newline=None if "b" in mode else "") as stream:
            yield stream
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_text(path: str | Path, what: str) -> str:
    """Return the text of `path`; a missing or unreadable file is a `UserError` that says it is the `what`."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"the {what} does not exist", path=path, fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the {what} cannot be read: {reason}", path=path) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
