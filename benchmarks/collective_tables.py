"""Makes ``configs/fabrics`` from the tables of NVIDIA's aiconfigurator, and says how far curves are from their rows.

    pip download --no-deps aiconfigurator-core==0.12.0 && python -m zipfile -e aiconfigurator_core-*.whl unpacked
    python -m benchmarks.collective_tables unpacked              # errors, as docs/networks.md has them (needs pyarrow)
    python -m benchmarks.collective_tables unpacked --write      # and the files

Rows are latencies (ms) by `message_size`, which is in elements: 2 bytes each of half and bfloat16, and of as many bytes
rows of int8 take as long. That they are nccl-tests' sizes shows in the bandwidths: read as a part of each rank, an
all-gather over 8 H100 would move 2.7 TB/s an NPU. A row is left out of a file where a larger message was faster: what a
message takes, a smaller one can take. Engines' all-reduce is vLLM's own, in a CUDA graph, whatever kernel it chose; the
others are NCCL's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np

from analytical.chains.solver import CollectiveSolver
from analytical.collectives.models import Models
from analytical.machine.description import Machine as Machinery
from analytical.machine.options import parse_options
from converters.execution_graph import ABSENT, CollectiveType
from orchestrator import RunSpec
from orchestrator.deploying import Deploying
from orchestrator.fabrics.fabric import COLLECTIVES, Fabric, whole
from orchestrator.fabrics.reading import FABRICS_FOLDER, read_fabric

PACKAGE = "aiconfigurator-core 0.12.0"
BYTES = 2
NAMES = {"alltoall": "all_to_all"}
Points = list[tuple[int, int]]
Curves = dict[tuple[str, int], Points]


@dataclass(frozen=True)
class Machine:
    """One fabric: what it is, whose it is, and its tables' folders (`nccl`: "" for none)."""

    name: str
    device: str
    hardware: str
    vllm: str
    nccl: str


MACHINES = (
    Machine(
        "a100-nvlink", "A100 SXM on NVSwitch", "A100-80G", "a100_sxm/comm/vllm/0.14.0", "a100_sxm/comm/nccl/2.27.3"
    ),
    Machine("h100-nvlink", "H100 SXM on NVSwitch", "H100", "h100_sxm/comm/vllm/0.19.0", "h100_sxm/comm/nccl/2.29.2"),
    Machine("h200-nvlink", "H200 SXM on NVSwitch", "H200", "h200_sxm/comm/vllm/0.19.0", "h200_sxm/comm/nccl/2.29.2"),
    Machine("b200-nvlink", "B200 SXM on NVSwitch", "B200", "b200_sxm/comm/vllm/0.19.0", "b200_sxm/comm/nccl/2.29.2"),
    Machine("gb200-nvlink", "4 GB200 on NVSwitch", "B200", "gb200/comm/vllm/0.19.0", "gb200/comm/nccl/2.29.2"),
    Machine("l40s-pcie4", "L40S on PCI Express 4.0", "L40S", "l40s/comm/vllm/0.14.0", "l40s/comm/nccl/2.27.3"),
    Machine(
        "rtxpro6000-pcie5-peer",
        "RTX PRO 6000 Blackwell Server Edition on PCI Express 5.0 with peer access",
        "RTXPRO6000",
        "rtx_pro_6000_server/comm/vllm/0.24.0",
        "rtx_pro_6000_server/comm/nccl/2.29.2",
    ),
)
HOST = Machine(
    "rtxpro6000-pcie5-host",
    "RTX PRO 6000 Blackwell Server Edition on PCI Express 5.0 without peer access, through host memory",
    "RTXPRO6000",
    "rtx_pro_6000_server/comm/vllm/0.19.0",
    "",
)
PEER = MACHINES[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unpacked", type=Path, help="folder that the wheel was unpacked to")
    parser.add_argument("--write", action="store_true", help=f"write {FABRICS_FOLDER}")
    wanted = parser.parse_args()
    data = wanted.unpacked / "aiconfigurator_core/systems/data"
    measured = {machine.name: {**vllm(data, machine), **nccl(data, machine)} for machine in MACHINES}
    measured[HOST.name] = vllm(data, HOST)
    if wanted.write:
        for machine in MACHINES:
            own = {key: points for key, points in measured[machine.name].items() if key[0] in COLLECTIVES}
            write(machine, own, sources(machine))
        write(HOST, {**through_host(measured), **measured[HOST.name]}, sources(HOST), derived=True)
    report(measured)
    rings(measured)
    choices(measured)


def rows(path: Path, kernel: str, dtype: str) -> Curves:
    """Return the rows of a table: (collective, ranks) -> (bytes, ns)."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path).to_pylist()
    found: Curves = {}
    for row in table:
        if row["kernel_source"] == kernel and dtype in (row.get("nccl_dtype"), row.get("allreduce_dtype")):
            key = NAMES.get(row["op_name"], row["op_name"]), row["num_gpus"]
            found.setdefault(key, []).append((row["message_size"] * BYTES, round(row["latency"] * 1e6)))
    return {key: sorted(points) for key, points in sorted(found.items())}


def vllm(data: Path, machine: Machine) -> Curves:
    """Return vLLM's all-reduces in CUDA graphs."""
    return rows(data / machine.vllm / "custom_allreduce_perf.parquet", "vLLM_custom_graph", "bfloat16")


def nccl(data: Path, machine: Machine) -> Curves:
    """Return NCCL's collectives; its all-reduce is called nccl_all_reduce."""
    found = rows(data / machine.nccl / "nccl_perf.parquet", "NCCL", "half")
    return {("nccl_all_reduce" if name == "all_reduce" else name, n): points for (name, n), points in found.items()}


def kept(points: Points) -> Points:
    """Return the points that no larger message beats."""
    return [(size, ns) for at, (size, ns) in enumerate(points) if all(ns <= later for _, later in points[at + 1 :])]


def through_host(measured: dict[str, Curves]) -> Curves:
    """Return NCCL's collectives with peer access, by how much longer NCCL's all-reduce over 2 ranks takes without."""
    peer = measured[PEER.name]
    without = dict(measured[HOST.name]["all_reduce", 2])
    longer = {size: without[size] / ns for size, ns in peer["nccl_all_reduce", 2] if size in without}
    found = {}
    for (name, ranks), points in peer.items():
        own = "all_reduce" if name == "nccl_all_reduce" else name
        if name != "all_reduce":
            found[own, ranks] = [(size, round(ns * longer[size])) for size, ns in points if size in longer]
    return found


def sources(machine: Machine) -> dict[str, str]:
    """Return where a file's figures come from."""
    said = {"vllm": f"{PACKAGE}, {machine.vllm}/custom_allreduce_perf.parquet, vLLM_custom_graph, bfloat16"}
    if machine.nccl:
        said["nccl"] = f"{PACKAGE}, {machine.nccl}/nccl_perf.parquet, half"
    else:
        said["derived"] = (
            f"{PACKAGE}: NCCL's rows with peer access, {PEER.nccl}/nccl_perf.parquet, times what an all-reduce over 2 "
            "ranks takes without it (vLLM's, which is then NCCL's) over what NCCL's takes with it, size by size"
        )
    return said


def origin(machine: Machine) -> str:
    """Return who measured, in short."""
    vllm_version, nccl_version = (folder.rsplit("/", 1)[-1] for folder in (machine.vllm, machine.nccl or PEER.nccl))
    scaled = "" if machine.nccl else " scaled"
    return f"{PACKAGE}: vLLM {vllm_version}, NCCL {nccl_version}{scaled}"


def write(machine: Machine, curves: Curves, said: dict[str, str], *, derived: bool = False) -> None:
    """Write a fabric's file, a curve a line."""
    other = "derived" if derived else "nccl"
    order = sorted(curves, key=lambda key: (COLLECTIVES.index(key[0]), key[1]))
    lines = [
        json.dumps(
            {
                "collective": name,
                "ranks": ranks,
                "source": "vllm" if name == "all_reduce" and not (derived and ranks > 2) else other,
                "points": [list(point) for point in kept(curves[name, ranks])],
            }
        )
        for name, ranks in order
    ]
    named = {"name": machine.name, "device": machine.device, "origin": origin(machine), "sources": said}
    head = json.dumps(named, indent=2)[:-2]
    body = ",\n    ".join(lines)
    (FABRICS_FOLDER / f"{machine.name}.json").write_text(f'{head},\n  "curves": [\n    {body}\n  ]\n}}\n')


def rings(measured: dict[str, Curves]) -> None:
    """Print all-reduces as measured, as simulated by the curves, and as simulated over the device's bare links."""
    print("\nall_reduce, us         ranks       bytes  measured  simulated  ring over the bare link")
    for machine in (*MACHINES, HOST):
        fabric = read_fabric(FABRICS_FOLDER / f"{machine.name}.json")
        for (name, ranks), points in measured[machine.name].items():
            if name == "all_reduce" and ranks in (2, 8):
                for size in (8192, 2**20, 2**26):
                    both = simulated_ns(machine.hardware, fabric, ranks, size)
                    said = "  ".join(f"{ns / 1000:9.1f}" for ns in (dict(points)[size], *both))
                    print(f"{machine.name:22s} {ranks:5d} {size:11d} {said}")


def simulated_ns(hardware: str, fabric: Fabric, ranks: int, size: int) -> tuple[int, int]:
    """Return the ns of an all-reduce alone, by the fabric's curves and by the device's links."""
    kind, whole_bytes = CollectiveType.ALL_REDUCE, np.array([size])
    deployed = [
        Deploying(spec).deploy(spec.engines[0]).configurations
        for said in (str(FABRICS_FOLDER / f"{fabric.name}.json"), "none")
        for spec in [RunSpec.of(model_name="gpt2", hardware=hardware, npu_num=ranks, fabric=said)]
    ]
    times = []
    for files in deployed:
        carried = whole_bytes if files.curves is None else files.curves.sizes(kind, (ranks,), whole_bytes)
        machine = Machinery(files.network, files.system, files.memory, parse_options({}), {})
        solver, group = CollectiveSolver(Models(machine), {}), tuple(range(ranks))
        times.append(max(solver.exits(group, kind, int(carried[0]), ABSENT, 0, (0,) * ranks)))
    return times[0], times[1]


def report(measured: dict[str, Curves]) -> None:
    """Print how far the shipped curves are from all measured rows, those that were left out included."""
    print("fabric                 collective       rows  curve: median  mean    max")
    for name, curves in measured.items():
        fabric = read_fabric(FABRICS_FOLDER / f"{name}.json")
        for collective in COLLECTIVES:
            errors = []
            for (own, ranks), points in curves.items():
                if own == collective:
                    sizes, ns = (np.array(column) for column in zip(*points, strict=True))
                    errors += list(abs(fabric.times_ns(own, ranks, sizes) / ns - 1))
            if errors:
                print(
                    f"{name:22s} {collective:15s} {len(errors):5d}  {median(errors):12.1%} "
                    f"{mean(errors):6.1%} {max(errors):6.0%}"
                )


def choices(measured: dict[str, Curves]) -> None:
    """Print what decided between ways of interpolating, and the share of an all-reduce that others take."""
    line, logarithms, between, shares = [], [], [], {name: [] for name in COLLECTIVES[1:]}  # type: ignore[var-annotated]
    everything = [points for curves in measured.values() for points in curves.values()]
    for points in everything:
        for at in range(1, len(points) - 1):
            size, ns = points[at]
            left = whole([*points[:at], *points[at + 1 :]], "")
            line.append(abs(left.times(np.array([size]))[0] / ns - 1))
            logarithm = np.interp(np.log(size), np.log(left.sizes), np.log(left.ns))
            logarithms.append(abs(np.exp(logarithm) / ns - 1))
    for curves in measured.values():
        for (name, ranks), points in curves.items():
            if ranks == 4 and (name, 8) in curves:
                trio = zip(curves[name, 2], curves[name, 8], points, strict=True)
                between += [abs((two * eight) ** 0.5 / ns - 1) for (_, two), (_, eight), (_, ns) in trio]
            if name in shares and ("nccl_all_reduce", ranks) in curves:
                whole_ns = dict(curves["nccl_all_reduce", ranks])
                shares[name] += [ns / whole_ns[size] for size, ns in points if size in whole_ns]
    print(f"\n{len(everything)} curves, leaving out one row after another:")
    for said, errors in (("lines", line), ("lines of logarithms", logarithms), ("4 ranks from 2 and 8", between)):
        print(f"  {said:20s} {len(errors):5d} rows, median {median(errors):.1%}, mean {mean(errors):.1%}")
    print("share of NCCL's all-reduce:", {name: round(median(own), 2) for name, own in shares.items()})


if __name__ == "__main__":
    main()
