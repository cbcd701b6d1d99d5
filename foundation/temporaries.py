"""Temporary files and folders beside a target: exclusive, with random names, held by a lock while they are in use.

    .NAME.<16 hexadecimal digits>.orrery

A program that is killed leaves its temporaries behind. The next one that writes the same target sweeps them: only names
of this form, owned by this user, no links, and not locked by anybody, so that a run that is still going keeps its own.
Where the file system has no locks nothing is swept.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path

_ATTEMPTS = 100
_NAME_CHARACTERS = 60
"""Of the target's name, in the temporary's: names have at most 255 bytes, and a character at most 4."""


def make_file(target: Path) -> tuple[int, Path]:
    """Create and lock a temporary file beside `target`; return its descriptor (open for writing) and its path.

    Its mode follows the umask. Raises `OSError`, or `ValueError` for a name that no file can have.
    """
    for _ in range(_ATTEMPTS):
        path = _random_name(target)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        if _hold(descriptor, path):
            return descriptor, path
        os.close(descriptor)
    raise FileExistsError(f"no free name for a temporary beside {target}")


def make_folder(target: Path) -> tuple[int, Path]:
    """Create and lock a temporary folder beside `target`, for this user alone; return its descriptor and its path."""
    for _ in range(_ATTEMPTS):
        path = _random_name(target)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if _hold(descriptor, path):
            return descriptor, path
        os.close(descriptor)
    raise FileExistsError(f"no free name for a temporary beside {target}")


def sweep(target: Path) -> None:
    """Remove what killed programs of this user have left beside `target`; whatever cannot be removed stays."""
    name = re.compile(re.escape(_prefix(target)) + r"[0-9a-f]{16}\.orrery")
    try:
        entries = [entry for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]
    except OSError:
        return
    for entry in entries:
        try:
            _remove_abandoned(entry)
        except OSError:
            continue


def lock(descriptor: int) -> bool:
    """Take the lock of an open file or folder; False where another holds it. A file system without locks grants it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_abandoned(entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    kind = stat.S_IFMT(found.st_mode)
    if found.st_uid != os.geteuid() or kind not in (stat.S_IFREG, stat.S_IFDIR):
        return
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if kind == stat.S_IFDIR:
            import shutil  # with all that it can unpack

            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
    finally:
        os.close(descriptor)


def _hold(descriptor: int, path: Path) -> bool:
    """Lock a temporary that was just made; False when a sweep took it before the lock was ours."""
    if not lock(descriptor):
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _random_name(target: Path) -> Path:
    return target.with_name(f"{_prefix(target)}{os.urandom(8).hex()}.orrery")


def _prefix(target: Path) -> str:
    return f".{target.name[:_NAME_CHARACTERS]}."
