"""One JSON text that is read whole: results of benchmarks, which are objects with lists of what was measured."""

from __future__ import annotations

from pathlib import Path

from foundation.documents import read_json
from foundation.key_paths import KeyPath
from orchestrator.requests.importing.beginning import WHAT
from orchestrator.requests.importing.record import Record

_MOST_BYTES = 1 << 27
"""Texts of 128 MiB; parsed, they take up a few times as much."""


def read_document(path: Path) -> Record:
    """Return the object of a file.

    The line of the first thing that is wrong is looked up, which takes its time: where it is missing, that of what is
    around it.
    """
    document = read_json(path, WHAT, _MOST_BYTES)
    looked_up: list[KeyPath] = []

    def line(place: KeyPath) -> int | None:
        if looked_up:
            return None
        looked_up.append(place)
        above = (document.line(place[:depth]) for depth in range(len(place), -1, -1))
        return next((found for found in above if found is not None), None)

    return Record.of(document.value, path, line)
