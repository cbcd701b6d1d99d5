"""What comes back from programs that are not ours, and what clients ask of a spool's server."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fuzz.target import Target, targets
from external.astra_sim.answer import read_cycles
from external.astra_sim.runner import Output, RunFailedError
from external.astra_sim.serve import _Server
from external.astra_sim.spool import Spool, read_output
from external.result_cache import FILE_NAME, ResultCache

_PART = b"\n--\n"


def _stdout(path: Path) -> None:
    stdout, _, stderr = path.read_bytes().partition(_PART)
    output = Output(0, stdout.decode(errors="replace"), stderr.decode(errors="replace"), None)
    cycles = read_cycles(output, 4)
    assert all(finish >= 0 for finish, _ in cycles.values())


def _answer(path: Path) -> None:
    """The four files of an answer, one after another in the input."""
    folder = path.with_name("answer")
    folder.mkdir()
    for name, content in zip(
        ("exit_code", "stdout", "stderr", "identity"), path.read_bytes().split(_PART), strict=False
    ):
        (folder / name).write_bytes(content)
    read_cycles(read_output(folder), 2)


class _Repeater:
    """Answers a request with its own arguments."""

    description, identity = "repeater", None

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        return Output(0, "\n".join(arguments), "", None)

    def close(self) -> None:
        """Nothing runs."""


def _request(path: Path) -> None:
    """Names and contents of a request's files, one after another; it must be answered, whatever they are."""
    spool = Spool(path.with_name("spool"))
    folder = spool.requests / "request"
    folder.mkdir()
    for part in path.read_bytes().split(_PART):
        name, _, content = part.partition(b"\n")
        if name and b"/" not in name and b"\0" not in name and len(name) < 200 and name not in (b".", b".."):
            Path(folder / name.decode(errors="surrogateescape")).write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()):
        _Server(spool, "server", _Repeater()).serve_waiting()
    read_output(spool.answers / "request")


def _cache(path: Path) -> None:
    """A file of stored answers: whatever it holds, it only ever costs time."""
    key = b"k" * 32
    with contextlib.redirect_stderr(io.StringIO()):
        cache = ResultCache(path.parent)
        cache.get(key)
        cache.put(key, b"value")
        assert cache.get(key) in (b"value", None)
        cache.close()


_ENDS = (RunFailedError,)
targets.register("astra_stdout")(Target("what ASTRA-sim printed", _stdout, ends=_ENDS))
targets.register("spool_answer")(Target("a spool server's answer", _answer, ends=_ENDS))
targets.register("spool_request")(Target("a spool client's request", _request, ends=()))
targets.register("result_cache")(Target("stored answers (sqlite3)", _cache, FILE_NAME, ends=()))
