"""What Orrery costs, beside what it should: CPU seconds of whole commands.

    python -m benchmarks [--only NAME ...] [--list] [--repeat N] [--scale F] [--markdown] [--json FILE]
    python -m benchmarks --checkout DIR      the same commands in another checkout beside ours, files compared
    python -m benchmarks --peer NAME='COMMAND'      a command of your own beside the row NAME
    python -m benchmarks --profile NAME      where the time of a row goes

Each row is a process of its own and takes what a user's command takes; what the interpreter and `import numpy` take (of
`main.py --help` the interpreter alone) is measured beside it and subtracted. A first run of every command, which may
have to compile, does not count. With `--scale` there are fewer requests, and targets do not apply.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import ROOT, Bench, FailedError, Measured, same_files, spent
from benchmarks.targets import WORK, Work


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and print the table; return the exit code."""
    given = _parser().parse_args(arguments)
    names = [work.name for work in WORK]
    unknown = [name for name in (*(given.only or ()), *([given.profile] if given.profile else ())) if name not in names]
    peers = dict(peer.partition("=")[::2] for peer in given.peer)
    unknown += [name for name in peers if name not in names]
    if unknown or given.scale <= 0 or given.repeat < 1:
        what = f"no row is called {unknown[0]}; there are {', '.join(names)}" if unknown else "give numbers above 0"
        print(f"error: {what}", file=sys.stderr)
        return 2
    if given.list:
        print("\n".join(f"{work.name:12} {work.what}" for work in WORK))
        return 0
    chosen = [work for work in WORK if given.only is None or work.name in given.only]
    try:
        if given.profile:
            _profile(next(work for work in WORK if work.name == given.profile), given.scale)
        else:
            _print(_rows(chosen, given, peers), markdown=given.markdown, scale=given.scale, target=given.json)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows")
    parser.add_argument("--list", action="store_true", help="say what rows there are")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="median of so many runs (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="so many times as many requests")
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="another checkout, measured beside this one")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="a command beside a row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file as well")
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    parser.add_argument("--profile", metavar="NAME", help="run a row in this process and say where its time goes")
    return parser


def _rows(chosen: Sequence[Work], given: argparse.Namespace, peers: dict[str, str]) -> list[dict[str, object]]:
    """Measure row after row, and say on the error stream which is under way."""
    own = Bench(ROOT, repeat=given.repeat, scale=given.scale)
    other = None if given.checkout is None else Bench(given.checkout, repeat=given.repeat, scale=given.scale)
    rows: list[dict[str, object]] = []
    for work in chosen:
        print(f"{work.name} ...", file=sys.stderr, flush=True)
        row: dict[str, object] = {"name": work.name, "work": work.what, "target": work.target, "best peer": work.peer}
        rows.append(row)
        if work.folder is not None and not work.folder.is_dir():
            row["skipped"] = f"{work.folder.name} is not there"
            continue
        with TemporaryDirectory() as folder:
            here, there = Path(folder) / "own.csv", Path(folder) / "other.csv"
            measured = own.measure(work, here)
            row |= {"CPU s": round(measured.cpu_s, 2), "MB": round(measured.peak_mb)}
            if other is not None:
                row |= _compared(measured, other.measure(work, there))
                row["same files"] = same_files(here, there) if work.writes else "-"
        if work.name in peers:
            row["peer CPU s"] = round(spent(shlex.split(peers[work.name]), ROOT).cpu_s, 2)
    return rows


def _compared(own: Measured, other: Measured) -> dict[str, object]:
    return {"other CPU s": round(other.cpu_s, 2), "ratio": round(other.cpu_s / max(own.cpu_s, 0.01), 1)}


def _print(rows: Sequence[dict[str, object]], *, markdown: bool, scale: float, target: Path | None) -> None:
    if target is not None:
        target.write_text(json.dumps({"scale": scale, "rows": rows}, indent=2) + "\n")
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("name",)))
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    if markdown:
        for line in (columns, ["---"] * len(columns), *cells):
            print(f"| {' | '.join(line)} |")
    else:
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for line in (columns, *cells):
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if scale != 1:
        print(f"\n{scale:g} times the requests: the targets are for all of them")


def _profile(work: Work, scale: float) -> None:
    """Run a row of `main.py` in this process; print its functions by their own time, and by all below them."""
    if work.module is not None:
        raise FailedError(f"{work.name} runs {work.module}; rows of main.py can be profiled")
    from orchestrator.cli import dispatch

    profile = cProfile.Profile()
    with TemporaryDirectory() as folder:
        flags = [*work.arguments(scale), *(["--output", f"{folder}/own.csv"] if work.writes else [])]
        profile.runcall(dispatch, flags)
    for order in ("tottime", "cumtime"):
        pstats.Stats(profile).sort_stats(order).print_stats(25)


if __name__ == "__main__":
    sys.exit(main())
