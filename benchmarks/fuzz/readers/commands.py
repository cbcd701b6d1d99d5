"""Command lines, one word a line, and the requests of ``python -m analytical --serve``."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from analytical.command_line import read_command
from analytical.serving import serve
from benchmarks.fuzz.target import Target, targets


def words(path: Path) -> list[str]:
    """Return the words as a shell would hand them over: bytes that are no text as lone surrogates, and no NUL."""
    return path.read_bytes().replace(b"\0", b"").decode(errors="surrogateescape").split("\n")


def _analytical(path: Path) -> None:
    read_command(words(path))


def _served(path: Path) -> None:
    requests = io.StringIO(path.read_bytes().decode(errors="replace"))
    answers = io.StringIO()
    with contextlib.chdir(path.parent):
        serve(requests, answers)
    for line in answers.getvalue().splitlines():
        answer = json.loads(line)
        assert answer["exit_code"] in (0, 1, 2), answer["stderr"]


targets.register("analytical_flags")(Target("flags of python -m analytical", _analytical))
targets.register("serve")(Target("requests of python -m analytical --serve", _served, ends=()))
