"""``python -m benchmarks.mutation``: how many of N random changes to the code do the tests notice? See --help."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from benchmarks.mutation.changes import Change
from benchmarks.mutation.ledger import Ledger, known_equivalent, score
from benchmarks.mutation.recording import Recording, record
from benchmarks.mutation.sampling import draw, packages
from benchmarks.mutation.trying import outcome
from benchmarks.mutation.workspace import Workspace

ROOT = Path(__file__).parents[2]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    result = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    result.add_argument("--changes", type=int, default=150, metavar="N", help="changes to try (default: 150)")
    result.add_argument("--seed", type=int, default=0, metavar="S", help="which changes (default: 0)")
    result.add_argument("--package", action="append", metavar="P", help="only this package; may be repeated")
    result.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="changes tried at a time (default: cores)"
    )
    folder = Path(tempfile.gettempdir()) / "orrery-mutation"
    what = "copies, recording and outcomes; a run that was stopped goes on from there (default: %(default)s)"
    result.add_argument("--work", type=Path, default=folder, metavar="DIR", help=what)
    result.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="the project (default: this one)")
    result.add_argument("--pytest", default="-m 'not long' tests", metavar="ARGUMENTS", help="what is the suite")
    result.add_argument("--at_least", type=float, default=0.0, metavar="%", help="exit 1 when fewer are noticed")
    result.add_argument("--list", action="store_true", help="print the changes that would be tried, and stop")
    return result


def main() -> int:
    """Run the command line; exit 1 when fewer are noticed than were asked for."""
    arguments = parser().parse_args()
    arguments.package = arguments.package or packages(arguments.root)
    changes = draw(arguments.root, arguments.package, arguments.changes, arguments.seed)
    if arguments.list:
        print("\n".join(map(str, changes)))
        return 0
    outcomes = try_all(changes, arguments)
    text, share = score({change: outcomes[change] for change in changes}, known_equivalent())
    print(text)
    return 0 if share >= arguments.at_least else 1


def try_all(changes: list[Change], arguments: argparse.Namespace) -> dict[Change, str]:
    """Try what has not been noticed yet on this state of the code, and not been tried with these tests."""
    work: Path = arguments.work / state_of(arguments.root, arguments.package)
    work.mkdir(parents=True, exist_ok=True)
    tests = state_of(arguments.root, ["tests"])
    ledger = Ledger(work / "outcomes.jsonl", tests)
    left = [change for change in changes if not ledger.knows(change)]
    if left:
        copies = [Workspace(arguments.root, work / f"copy-{index}") for index in range(arguments.jobs)]
        recording = record(copies[0], work / f"recording-{tests}", shlex.split(arguments.pytest), arguments.jobs)
        for done, (change, found) in enumerate(_outcomes(left, recording, copies), 1):
            ledger.add(change, found)
            print(f"{done}/{len(left)} {found:<10} {change}", file=sys.stderr, flush=True)
    return ledger.outcomes


def _outcomes(changes: list[Change], recording: Recording, copies: list[Workspace]) -> Iterator[tuple[Change, str]]:
    """Yield outcomes as they are known; each copy tries one change at a time."""
    free: Queue[Workspace] = Queue()
    for copy in copies:
        free.put(copy)

    def attempt(change: Change) -> tuple[Change, str]:
        copy = free.get()
        try:
            return change, outcome(change, recording, copy)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(attempt, changes)


def state_of(root: Path, parts: list[str]) -> str:
    """Return a hash of the Python files of some folders or modules of the project."""
    digest = hashlib.sha256()
    for part in sorted(parts):
        for path in sorted([*(root / part).rglob("*.py"), *root.glob(f"{part}.py")]):
            digest.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
