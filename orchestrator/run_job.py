"""The main job: simulate one run, say how it goes, and leave its files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from foundation.errors import UserError
from foundation.printable import printable
from orchestrator.observers.console import Console, IntervalLines, IterationLines
from orchestrator.observers.files import ResultFiles, companions
from orchestrator.observers.interface import Observer, Run
from orchestrator.observers.progress import ProgressShown
from orchestrator.settings.record import input_paths
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation


def run(spec: RunSpec, stream: TextIO, notes: Sequence[str] = ()) -> int:
    """Simulate `spec`, print to `stream`, write the files; return the exit code: 2 where a file could not be written.

    `notes`: what a user should know of the files that `spec` was read from.
    Wrong input is a `UserError` before anything is written. An error in mid-run is raised after what was finished has
    been written.
    """
    check_writable(spec)
    wanted = spec.output
    files = result_files(spec)
    observers: list[Observer] = []
    if wanted.write_configs is not None:
        observers.append(_ConfigurationFiles(wanted.write_configs))
    if files is not None:
        observers.append(files)
    Simulation(spec, [*observers, *_speakers(spec, stream, files)], notes=notes).run()
    return 2 if files is not None and files.failed else 0


def result_files(spec: RunSpec) -> ResultFiles | None:
    """Return the observer that writes the result's files, None where a run names no output."""
    wanted = spec.output
    if wanted.output is None:
        return None
    return ResultFiles(wanted.output, itl=wanted.itl, report=wanted.report, complain=_complain)


def check_writable(spec: RunSpec) -> None:
    """Refuse an output that stands for something else: a folder, a device, a file that the run reads."""
    if spec.output.output is not None:
        _check_replaceable(spec.output.output, spec)
        _check_folder("--output", spec.output.output.parent)
    for flag, folder in {"--write_configs": spec.output.write_configs, "--trace_dir": spec.execution.trace_dir}.items():
        if folder is not None:
            _check_folder(flag, folder)


def _check_folder(flag: str, folder: Path) -> None:
    try:
        nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
        usable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except OSError as error:
        raise UserError(
            f"cannot be used: {error.strerror}", path=folder, field=flag, fix="name another folder"
        ) from None
    if not usable:
        raise UserError("the folder cannot be written", path=nearest, field=flag, fix="name another folder")


def _check_replaceable(output: Path, spec: RunSpec) -> None:
    inputs = input_paths(spec)
    try:
        if output.is_dir():
            raise UserError("is a folder", path=output, field="--output", fix="name a CSV file")
        for path in (output, *companions(output).values()):
            if path.exists() and not path.is_file():
                raise UserError("is not an ordinary file", path=path, field="--output", fix="name a CSV file")
            if any(path.exists() and one.exists() and path.samefile(one) for one in inputs):
                raise UserError("the run reads this file", path=path, field="--output", fix="name another file")
    except OSError as error:
        raise UserError(
            f"cannot be used: {error.strerror}", path=output, field="--output", fix="name another"
        ) from None


def _speakers(spec: RunSpec, stream: TextIO, files: ResultFiles | None) -> list[Observer]:
    """Return who says what: nothing when quiet, else an introduction, progress or lines, and the summary."""
    wanted = spec.output
    if wanted.quiet:
        return []
    lines: list[Observer] = []
    if wanted.verbose:
        lines.append(IterationLines(stream, several=sum(one.engines for one in spec.engines) > 1))
    if wanted.verbose or wanted.log_interval is not None:
        lines.append(IntervalLines(stream))
    return [*(lines or [ProgressShown(stream)]), Console(stream, files)]


class _ConfigurationFiles(Observer):
    """Writes the effective configuration files before the run.

    Those of several kinds of engines go into a folder each, named by the kind's first engine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, run: Run) -> None:
        """Write network.yml, system.json and memory.json."""
        kinds = run.places()
        for one, places in kinds.items():
            one.configurations.write(self._folder / f"engine{places[0]}" if len(kinds) > 1 else self._folder)


def _complain(error: UserError) -> None:
    print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
