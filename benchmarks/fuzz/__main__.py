"""``python -m benchmarks.fuzz READER``: mutated inputs, guided by coverage, against one reader. See --help."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from benchmarks.fuzz import corpus, session
from benchmarks.fuzz.target import targets
from foundation.commands import run_command
from foundation.errors import UserError


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    result = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    result.add_argument("readers", nargs="*", metavar="READER", help="one of --list; `all` for every one in turn")
    result.add_argument("--minutes", type=float, default=5.0, metavar="M", help="for each reader (default: 5)")
    folder = Path(tempfile.gettempdir()) / "orrery-fuzz"
    result.add_argument("--work", type=Path, default=folder, metavar="DIR", help="inputs and findings (%(default)s)")
    result.add_argument("--list", action="store_true", help="print the readers and stop")
    what = "choose the corpus in tests/fuzz/corpus anew, from itself and what was found in DIR; fuzz nothing"
    result.add_argument("--keep", action="store_true", help=what)
    return result


def main() -> int:
    """Run the command line; exit 1 where there are findings."""
    arguments = parser().parse_args()
    if arguments.list:
        for name in targets:
            print(f"{name:<18} {targets.get(name).about}")
        return 0
    if not arguments.readers:
        raise UserError("no reader is named", fix=f"name some of {', '.join(targets)}, or all")
    readers = list(targets) if arguments.readers == ["all"] else arguments.readers
    for reader in readers:
        targets.get(reader)
    if arguments.keep:
        for reader in readers:
            keep(reader, arguments.work)
        return 0
    return _fuzz(readers, arguments)


def _fuzz(readers: list[str], arguments: argparse.Namespace) -> int:
    found = 0
    for reader in readers:
        outcome = session.run(reader, 60 * arguments.minutes, arguments.work)
        print(outcome, flush=True)
        for path in outcome.findings:
            print(f"    {path}", flush=True)
        found += len(outcome.findings)
    return 1 if found else 0


def keep(reader: str, work: Path) -> None:
    """Write the corpus of one reader anew; inputs that once were findings stay."""
    folder = corpus.FOLDER / reader
    folder.mkdir(parents=True, exist_ok=True)
    candidates = [*corpus.contents(folder), *corpus.contents(work / reader / "inputs")]
    chosen = corpus.choose(targets.get(reader), candidates)
    for path in corpus.files(reader):
        if not path.name.startswith(corpus.MENDED):
            path.unlink()
    for content in chosen:
        (folder / hashlib.sha256(content).hexdigest()[:12]).write_bytes(content)
    print(f"{reader}: {len(chosen)} of {len(candidates)} inputs, {sum(map(len, chosen))} bytes")


if __name__ == "__main__":
    sys.exit(run_command(main))
