"""Simulate recorded servers and compare, by whole commands: how close the runs come, and how long they take.

    python -m benchmarks.recorded_servers FOLDER [--at_once N] [--repeat N] [--flags FLAGS]

FOLDER has a folder for each server with `input/` (cluster_config.json, engine.json, model_config.json, profile/ and
workload.jsonl, as LLMServingSim's validation has them) and, where the recording is there, `truth/requests.jsonl`. FLAGS
are the simulator's own, `--perf_model roofline` in place of the tables among them. Prints for each server its seconds
(by the clock), KV blocks and the errors; and the seconds of all together, the best of N. `--json FILE` keeps the errors
for `benchmarks.recorded_errors`, which draws them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

MAIN = Path(__file__).resolve().parents[1] / "main.py"
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Server:
    """A recorded server's folder."""

    folder: Path

    def command(self, output: Path, flags: Sequence[str]) -> list[str]:
        """Return the command that simulates it."""
        given = self.folder / "input"
        named = {
            "cluster_config": given / "cluster_config.json",
            "engine_config": given / "engine.json",
            "model_config": given / "model_config.json",
            "dataset": given / "workload.jsonl",
            "output": output,
        }
        if "--perf_model" not in flags:
            named["profile_dir"] = given / "profile"
        words = [word for name, path in named.items() for word in (f"--{name}", str(path))]
        return [sys.executable, str(MAIN), *words, "--quiet", *flags]

    def errors(self, output: Path) -> dict[str, dict[str, float]]:
        """Return the errors (%) by metric and statistic; none where the recording is not there."""
        truth = self.folder / "truth" / "requests.jsonl"
        if not truth.is_file():
            return {}
        told = output.with_suffix(".errors.json")
        command = ["validate", "--recorded", str(truth), "--simulated", str(output), "--json", str(told)]
        _run([sys.executable, str(MAIN), *command])
        found: dict[str, dict[str, float]] = {}
        for one in json.loads(told.read_text(encoding="utf-8"))["errors"]:
            if one["error_percent"] is not None:
                found.setdefault(one["metric"], {})[one["statistic"]] = one["error_percent"]
        return found


def _run(command: list[str]) -> float:
    """Run a command to its end; return its seconds by the clock."""
    begin = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begin


def _processor() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _print(server: Server, output: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Print what a run took and how close it came; return its errors."""
    facts: dict[str, Any] = json.loads(output.with_name(f"{output.stem}-summary.json").read_text(encoding="utf-8"))
    print(f"{server.folder.name}: {seconds:.2f} s by the clock, {facts['kv_blocks']} KV blocks")
    errors = server.errors(output)
    if errors:
        print(f"  {'error, %':12}" + "".join(f"{name:>8}" for name in STATISTICS))
        for metric in ("ttft", "tpot", "latency"):
            print(f"  {metric:12}" + "".join(f"{errors[metric][name]:8.2f}" for name in STATISTICS))
    return errors


def main() -> None:
    """Simulate, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(",")[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at_once", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--repeat", type=int, default=1, help="times that everything is run (default: 1)")
    parser.add_argument("--json", type=Path, help="file to keep the errors in")
    parser.add_argument("--flags", default="", help="the simulator's own, such as '--perf_model roofline'")
    arguments = parser.parse_args()
    servers = [Server(path.parent) for path in sorted(arguments.folder.glob("*/input"))]
    if not servers:
        raise SystemExit(f"{arguments.folder}: no folder in it has an input/")
    with TemporaryDirectory(prefix="orrery-") as folder:
        outputs = [Path(folder) / f"{server.folder.name}.csv" for server in servers]
        commands = [
            server.command(output, arguments.flags.split()) for server, output in zip(servers, outputs, strict=True)
        ]
        best, processor = float("inf"), float("inf")
        for _ in range(arguments.repeat):
            begin, used = perf_counter(), _processor()
            with ThreadPoolExecutor(arguments.at_once) as pool:
                seconds = list(pool.map(_run, commands))
            best, processor = min(best, perf_counter() - begin), min(processor, _processor() - used)
        told = zip(servers, outputs, seconds, strict=True)
        errors = {server.folder.name: _print(server, output, own) for server, output, own in told}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(errors, indent=2) + "\n", encoding="utf-8")
    print(
        f"all {len(servers)}, {arguments.at_once} at a time: {best:.2f} s by the clock, {processor:.2f} s of processors"
    )


if __name__ == "__main__":
    main()
