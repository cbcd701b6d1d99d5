"""Whole runs on a real ASTRA-sim binary beside the embedded backend: ``python -m benchmarks.backends_equal``.

Runs every kind of serving job twice, compares the CSV files byte for byte, and prints the table of docs/accuracy.md.
The binary is ORRERY_ASTRA_SIM (or --astra_sim PATH). ``--only KIND`` runs one. Exits 1 if any pair differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINKS = ["--link_bw", "25", "--link_latency", "700"]
TWO_DIMS = "topology: [ Ring, Switch ]\nnpus_count: [ 2, 4 ]\nbandwidth: [ 200.0, 25.0 ]\nlatency: [ 300.0, 900.0 ]\n"
SYSTEM = {
    "scheduling-policy": "LIFO",
    "collective-optimization": "localBWAware",
    "endpoint-delay": 10,
    "active-chunks-per-dimension": 1,
    "preferred-dataset-splits": 4,
    "local-mem-bw": 936,
    **{f"{kind}-implementation": ["ring", "direct"] for kind in ("all-reduce", "all-gather", "reduce-scatter")},
    "all-to-all-implementation": ["direct", "direct"],
}
KINDS = {
    "TP 1": "--npu_num 1 --req_num 8",
    "TP 4": "--npu_num 4 --npu_group 1 --req_num 6",
    "PP 4": "--npu_num 4 --npu_group 4 --req_num 6",
    "hybrid 2 x 2": "--npu_num 4 --npu_group 2 --req_num 6",
    "TP 8, two dimensions": "--npu_num 8 --npu_group 1 --req_num 1 --network NETWORK --system SYSTEM",
    "MoE, TP 4 x EP 4": "--model_name mistralai/Mixtral-8x7B-v0.1 --hardware H100 --npu_num 4 --ep_size 4 --req_num 2",
    "MoE, TP 2 x EP 2 x PP 2": "--model_name mistralai/Mixtral-8x7B-v0.1 --hardware H100 --npu_num 4 --npu_group 2 "
    "--ep_size 2 --req_num 2",
    "TP 2 x CP 2, a ring": "--npu_num 4 --cp_size 2 --req_num 4",
    "CP 4, gathered": "--npu_num 4 --cp_size 4 --cp_mode allgather --req_num 4",
    "TP 2 x CP 2 x PP 2, norms by token": "--npu_num 8 --npu_group 2 --cp_size 2 --sequence_parallel --req_num 2",
    "PP 2 of 20 and 12 layers": "--npu_num 2 --npu_group 2 --pp_layers 20,12 --req_num 4",
    "eviction, TP 1": "--npu_num 1 --npu_mem 16.35 --remote_bw 20 --req_num 12",
    "eviction, TP 4": "--npu_num 4 --npu_group 1 --npu_mem 4.15 --remote_bw 20 --req_num 10",
    "attention by requests": "--npu_num 4 --npu_group 1 --attention_placement requests --req_num 4",
    "vLLM's scheduler, TP 2": "--npu_num 2 --npu_group 1 --scheduling vllm --req_num 6",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--astra_sim", default=os.environ.get("ORRERY_ASTRA_SIM"), help="the binary")
    parser.add_argument("--only", choices=KINDS, help="one kind of run")
    arguments = parser.parse_args()
    if not arguments.astra_sim:
        parser.error("no binary: set ORRERY_ASTRA_SIM or give --astra_sim")
    print("| run | iterations | makespan, s | evictions | embedded, ms | binary, ms | SHA-256 of both CSVs |")
    print("|---|---|---|---|---|---|---|")
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "network.yml").write_text(TWO_DIMS)
        (work / "system.json").write_text(json.dumps(SYSTEM))
        for kind in [arguments.only] if arguments.only else KINDS:
            different += not _compare(work, kind, arguments.astra_sim)
    return 1 if different else 0


def flags_of(kind: str, work: Path) -> list[str]:
    """Return the flags of one kind of run; a network of its own says its links itself. Files are in `work`."""
    files = {"NETWORK": str(work / "network.yml"), "SYSTEM": str(work / "system.json")}
    words = KINDS[kind].split()
    return [*([] if "NETWORK" in words else LINKS), *(files.get(word, word) for word in words)]


def _compare(work: Path, kind: str, binary: str) -> bool:
    """Run one kind both ways, print its row, and return whether the CSVs are equal."""
    flags = flags_of(kind, work)
    ways = {"embedded": [], "binary": ["--backend", "astra-sim", "--astra_sim", binary, "--no_cache"]}
    milliseconds, hashes, summary = {}, {}, {}
    for name, backend in ways.items():
        output = work / f"{name}.csv"
        command = [sys.executable, "main.py", *flags, *backend, "--output", str(output)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        hashes[name] = hashlib.sha256(output.read_bytes()).hexdigest()
        rows = dict(line.split("\t") for line in (work / f"{name}-simulation-time.tsv").read_text().splitlines())
        milliseconds[name] = float(rows["backend"])
        summary = json.loads((work / f"{name}-summary.json").read_text())
    equal = hashes["embedded"] == hashes["binary"]
    shown = f"`{hashes['binary'][:16]}`" if equal else "**different**"
    print(
        f"| {kind} | {summary['iterations']} | {summary['makespan_s']:.3f} | {summary['evictions']} "
        f"| {milliseconds['embedded']:.0f} | {milliseconds['binary']:.0f} | {shown} |",
        flush=True,
    )
    return equal


if __name__ == "__main__":
    sys.exit(main())
