"""A content-addressed store of answers on disk, shared by every run of a user: one sqlite3 file.

It only ever saves time: a damaged file is set aside, a full disk or an unwritable folder is worked around, and each is
said once on stderr. Values carry a checksum of their own because SQLite has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import sys
import threading
from pathlib import Path

from foundation.cache_folder import cache_folder
from foundation.printable import printable

FILE_NAME = "results.sqlite3"
_CHECK_BYTES = 8
_BUSY_S = 30.0
_FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What Python's sqlite3 raises: the second where SQLite's message quotes damaged text that is no UTF-8."""
_SCHEMA = "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class ResultCache:
    """Maps keys (hashes) to values (bytes), counting `hits` and `misses`. Safe for several processes and threads.

    Opened when first used. After a failure that cannot be mended `get` finds nothing and `put` does nothing.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.path = (Path(folder) if folder is not None else cache_folder()) / FILE_NAME
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._disabled = False

    def get(self, key: bytes) -> bytes | None:
        """Return the value stored under `key`, or None."""
        with self._lock:
            value = self._get(key)
            if value is None:
                self.misses += 1
            else:
                self.hits += 1
            return value

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`; a value that another process stored meanwhile is the same one."""
        with self._lock:
            try:
                connection = self._open()
                if connection is not None:
                    with connection:
                        row = (key, _checksum(key, value) + value)
                        connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", row)
            except _FAILURES as error:
                self._recover(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop_connection()

    def _get(self, key: bytes) -> bytes | None:
        try:
            connection = self._open()
            if connection is None:
                return None
            row = connection.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone()
        except _FAILURES as error:
            self._recover(error)
            return None
        if row is None:
            return None
        (stored,) = row
        if not isinstance(stored, bytes) or stored[:_CHECK_BYTES] != _checksum(key, stored[_CHECK_BYTES:]):
            self._set_aside("a stored answer does not match its checksum")
            return None
        return stored[_CHECK_BYTES:]

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and not self._disabled:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._disable(error.strerror or str(error))
                return None
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_S, check_same_thread=False)
            self._connection.text_factory = bytes  # a rotted value may claim to be text
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A lost last answer after a power cut is worked out again; WAL keeps the file whole all the same.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_SCHEMA)
        return self._connection

    def _recover(self, error: sqlite3.Error | UnicodeDecodeError) -> None:
        """Set a damaged file aside; whatever else went wrong (no room, no permission, locked) ends the caching."""
        damaged = isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)
        if damaged and not isinstance(error, sqlite3.OperationalError):
            self._set_aside(str(error))
        else:
            self._disable(str(error))

    def _set_aside(self, reason: str) -> None:
        self._drop_connection()
        number = 0
        while (aside := self.path.with_name(f"{FILE_NAME}.damaged-{number}")).exists():
            number += 1
        try:
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        except OSError as error:
            self._disable(f"{reason}, and it cannot be set aside: {error.strerror}")
            return
        _warn(f"the result cache {self.path} is damaged ({reason}): set aside as {aside.name}, a new one begins")

    def _disable(self, reason: str) -> None:
        self._drop_connection()
        self._disabled = True
        _warn(f"the result cache {self.path} cannot be used ({reason}): going on without it")

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*_FAILURES):
                self._connection.close()
            self._connection = None


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()[:_CHECK_BYTES]


def _warn(message: str) -> None:
    print(f"warning: {printable(message)}", file=sys.stderr)
