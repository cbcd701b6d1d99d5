"""Files that are read within bounds, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from foundation import temporaries
from foundation.bounds import TEXT_BYTES
from foundation.errors import UserError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it over `path` when the block ends without an error.

    Folders are made as needed. Whatever the system refuses (a folder that cannot be made or written, a full disk at any
    moment) is a `UserError` naming `path`, and so is a `path` that is a folder or a device; nothing is left behind.
    """
    target = Path(path)
    with explained(target):
        prepare(target)
        temporaries.sweep(target)
        descriptor, temporary = temporaries.make_file(target)
        held = os.dup(descriptor)  # the lock is held until the file has its name, beyond the stream's own end
    try:
        with _writing(target), open_descriptor(descriptor, mode) as stream:
            yield stream
        with explained(target):
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(held)


def prepare(target: Path) -> None:
    """Make the folder of a file that is about to be written; refuse a target that is there and no ordinary file."""
    if target.exists() and not target.is_file():
        raise UserError("is not an ordinary file: it would be replaced", path=target, fix="name a file")
    target.parent.mkdir(parents=True, exist_ok=True)


def open_descriptor(descriptor: int, mode: str) -> IO[Any]:
    """Return a stream that writes to `descriptor`: bytes, or UTF-8 without translation of line ends."""
    binary = "b" in mode
    return os.fdopen(descriptor, mode, encoding=None if binary else "utf-8", newline=None if binary else "")


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn what the system refuses in the block into a `UserError` that names `target`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise cannot_write(error, target) from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """As `explained`, around a caller's own code: only what concerns the open stream is ours to explain."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise cannot_write(error, target) from error


def cannot_write(error: OSError | ValueError, target: Path, kept: str = "") -> UserError:
    """Return the error for a file that cannot be written; `kept` says what is left of it."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free space, or name another place" if full else "name a folder that can be written"
    return UserError(f"cannot write: {reason(error)}{kept}", path=target, fix=fix)


def open_input(path: str | Path, what: str) -> BufferedReader:
    """Open an ordinary file for reading; `what` is what errors call it.

    A `UserError` says that it is missing, cannot be read, or is something that may never end (a pipe, a device).
    """
    try:
        _check_ordinary(Path(path).stat(), path, what)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stream = os.fdopen(descriptor, "rb")
    except FileNotFoundError:
        raise UserError(f"the {what} does not exist", path=path, fix="check the path") from None
    except (OSError, ValueError) as error:
        raise UserError(f"the {what} cannot be read: {reason(error)}", path=path) from error
    try:
        _check_ordinary(os.fstat(descriptor), path, what)
    except UserError:
        stream.close()
        raise
    return stream


def names_in(folder: str | Path) -> list[str]:
    """Return the names in `folder`, in order; a `UserError` where it cannot be read."""
    try:
        return sorted(entry.name for entry in Path(folder).iterdir())
    except (OSError, ValueError) as error:
        raise UserError(f"the folder cannot be read: {reason(error)}", path=folder) from error


def read_bytes(path: str | Path, what: str, limit: int) -> bytes:
    """Return the content of an ordinary file of at most `limit` bytes; anything else is a `UserError`."""
    with open_input(path, what) as stream:
        try:
            content = stream.read(limit + 1)
        except OSError as error:
            raise UserError(f"the {what} cannot be read: {reason(error)}", path=path) from error
    if len(content) > limit:
        raise UserError(f"the {what} is larger than {limit} bytes", path=path, fix="is this the right file?")
    return content


def read_text(path: str | Path, what: str, limit: int = TEXT_BYTES) -> str:
    """Return the text of `path` with plain line ends and without a byte-order mark; see `read_bytes`.

    What may be larger than `limit` bytes is read in pieces (`open_input`).
    """
    text = decode(read_bytes(path, what, limit), path, what)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode(content: bytes, path: str | Path | None, what: str) -> str:
    """Return UTF-8 `content` as text, a byte-order mark skipped; a `UserError` names the line that is none."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"the {what} is UTF-16 text", path=path, fix="save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"the {what} is not UTF-8 text", path=path, line=line, fix="save it as UTF-8") from None


def reason(error: OSError | ValueError) -> str:
    """Return what the system says of an error, in its own words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _check_ordinary(found: os.stat_result, path: str | Path, what: str) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        is_what = _KINDS.get(kind, "no ordinary file")
        raise UserError(f"the {what} cannot be read: it is {is_what}", path=path, fix="name an ordinary file")
