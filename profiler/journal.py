"""What has been measured, a line a timing, as it comes: a profile that was killed goes on from here.

{"device": "...", "torch": "...", ...}                          the first line: what must stay the same
{"note": {"kernel": "linear", "clocks.sm": "2370 MHz", ...}}      clocks as a kernel's timings begin, or all end
{"kernel": "linear", "shape": [4096, 6144, 0], "sizes": [16], "ns": 9200.5, "kernels": ["..."]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.files import read_bytes
from foundation.part_files import PartFile
from profiler.device import Facts, Timing
from profiler.work import Kernel, Work

NAME = "measured.jsonl"
_MOST_BYTES = 2**30
_WHAT = "journal of the profile"


class Journal:
    """Timings in ``measured.jsonl`` of `folder`, and in ``measured.jsonl.part`` until all are there.

    `identity`: of device and model; a journal of others is a `UserError`, as is one that another profiler writes.
    """

    def __init__(self, folder: Path, identity: Facts) -> None:
        path = folder / NAME
        part = path.with_name(f"{NAME}.part")
        going_on = part.is_file()
        found = part if going_on else path
        content = read_bytes(found, _WHAT, _MOST_BYTES) if found.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.known, self.notes = _read(whole, found, identity)
        self._file = PartFile(path, resume_at=len(whole) if going_on else None)
        if not going_on or not whole:
            self._file.write(whole.decode() or f"{json.dumps(dict(identity))}\n")
            self._file.flush()

    def add(self, work: Work, timing: Timing) -> None:
        """Write a timing; it is on its way to the disk when this returns."""
        self.known[work] = timing
        line = {
            "kernel": work.kernel.name,
            "shape": work.kernel.shape,
            "sizes": work.sizes,
            "ns": timing.ns,
            "kernels": timing.kernels,
        }
        self._file.write(f"{json.dumps(line)}\n")
        self._file.flush()

    def note(self, facts: Facts) -> None:
        """Write how the device is now."""
        self.notes.append(dict(facts))
        self._file.write(f"{json.dumps({'note': dict(facts)})}\n")
        self._file.flush()

    def finish(self) -> None:
        """Give the file its name: everything was measured."""
        self._file.commit()

    def close(self) -> None:
        """Stop; what is not finished is gone on with by the next one."""
        self._file.close()


def _read(content: bytes, path: Path, identity: Facts) -> tuple[dict[Work, Timing], list[Facts]]:
    lines = content.splitlines()
    known: dict[Work, Timing] = {}
    notes: list[Facts] = []
    if not lines:
        return known, notes
    _check_identity(_parsed(lines[0], path, 1), path, identity)
    for number, line in enumerate(lines[1:], start=2):
        told = _parsed(line, path, number)
        try:
            if "note" in told:
                notes.append(dict(told["note"]))
                continue
            kernel = Kernel(str(told["kernel"]), tuple(map(int, told["shape"])))
            known[Work(kernel, tuple(map(int, told["sizes"])))] = Timing(float(told["ns"]), tuple(told["kernels"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _broken(path, number) from error
    return known, notes


def _check_identity(told: Mapping[str, Any], path: Path, identity: Facts) -> None:
    for name in sorted({*told, *identity}):
        if told.get(name) != identity.get(name):
            what = f"was measured with {name} {told.get(name)!r}, and now it is {identity.get(name)!r}"
            raise UserError(what, path=path, line=1, fix="give another --out, or remove what was measured")


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError as error:
        raise _broken(path, number) from error
    if not isinstance(told, dict):
        raise _broken(path, number)
    return told


def _broken(path: Path, number: int) -> UserError:
    return UserError("is no line of a profile's journal", path=path, line=number, fix="remove the file, and start anew")
