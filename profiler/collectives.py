"""Times collectives between the GPUs of one machine, in a process a GPU, as the file of a fabric (`--fabric`).

NCCL on GPUs, gloo on a CPU. Bytes are what nccl-tests call a collective's size: the message of each rank for an
all-reduce and an all-to-all, all parts together for an all-gather and a reduce-scatter. A time is that of the slowest
rank, the median of several rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Any

from foundation.documents import read_json
from foundation.errors import UserError
from profiler.output import write_json

NAME = "fabric.json"
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
WARM_UPS, REPEATS, LAUNCHES = 3, 7, 10
NUMBER_BYTES = 2
Curve = dict[str, Any]


def sizes_up_to(most: int) -> list[int]:
    """Return the bytes that are timed: 1,024 to `most`, doubling."""
    return [1 << power for power in range(10, most.bit_length()) if 1 << power <= most]


def ranks_up_to(most: int) -> list[int]:
    """Return the numbers of ranks that are timed: 2 to `most`, doubling, and `most`."""
    return sorted({count for count in (2, 4, 8, 16, most) if 2 <= count <= most})


def write_fabric(folder: Path, device: str, origin: str, ranks: Sequence[int], sizes: Sequence[int]) -> Path:
    """Time the collectives over each of `ranks` on `device` (``cuda`` or ``cpu``), and write ``fabric.json``."""
    library = "nccl" if device == "cuda" else "gloo"
    curves = [curve for count in ranks for curve in _curves(count, device, library, sizes)]
    path = folder / NAME
    content = {"name": "measured", "device": device, "origin": origin, "sources": {library: origin}, "curves": curves}
    write_json(path, content)
    return path


def _curves(count: int, device: str, library: str, sizes: Sequence[int]) -> Iterable[Curve]:
    from torch.multiprocessing.spawn import ProcessException, spawn

    with TemporaryDirectory() as folder:
        result = Path(folder) / "curves.json"
        try:
            spawn(_rank, (count, device, library, tuple(sizes), f"{folder}/meeting", str(result)), nprocs=count)
        except ProcessException as error:
            what = f"collectives over {count} ranks cannot be timed: {str(error).strip().splitlines()[-1]}"
            raise UserError(what, field="--collectives", fix="leave it out, or give fewer ranks") from error
        found: list[Curve] = read_json(result, "timings of collectives").value["curves"]
    return found


def _rank(rank: int, count: int, device: str, library: str, sizes: Sequence[int], meeting: str, result: str) -> None:
    """Time everything as one of `count` ranks; the first writes it down."""
    import torch

    process = torch.distributed
    place = f"cuda:{rank}" if device == "cuda" else "cpu"
    if device == "cuda":
        torch.cuda.set_device(rank)
    process.init_process_group(library, init_method=f"file://{meeting}", rank=rank, world_size=count)
    curves = []
    for name in COLLECTIVES:
        points = [[size, _slowest_ns(torch, _launch(torch, name, size, count, place), place)] for size in sizes]
        curves.append({"collective": name, "ranks": count, "source": library, "points": points})
    if rank == 0:
        write_json(Path(result), {"curves": curves})
    process.barrier()
    process.destroy_process_group()


def _launch(torch: Any, name: str, size: int, count: int, place: str) -> Callable[[], object]:
    process = torch.distributed
    # The name that newer releases of PyTorch give it.
    scatter = getattr(process, "reduce_scatter_single", None) or process.reduce_scatter_tensor
    gather = getattr(process, "all_gather_single", None) or process.all_gather_into_tensor
    numbers = max(count, size // NUMBER_BYTES // count * count)
    dtype = torch.bfloat16 if place != "cpu" else torch.float16
    whole, part = (torch.zeros(wanted, dtype=dtype, device=place) for wanted in (numbers, numbers // count))
    return {
        "all_reduce": lambda: process.all_reduce(whole),
        "all_gather": lambda: gather(whole, part),
        "reduce_scatter": lambda: scatter(part, whole),
        "all_to_all": lambda: process.all_to_all_single(torch.empty_like(whole), whole),
    }[name]


def _slowest_ns(torch: Any, launch: Callable[[], object], place: str) -> int:
    """Return the median time over rounds of the slowest rank (ns)."""
    for _ in range(WARM_UPS):
        launch()
    rounds = []
    for _ in range(REPEATS):
        torch.distributed.barrier()
        own = _gpu_ns(torch, launch) if place != "cpu" else _cpu_ns(launch)
        slowest = torch.tensor([own], dtype=torch.float64, device=place)
        torch.distributed.all_reduce(slowest, op=torch.distributed.ReduceOp.MAX)
        rounds.append(float(slowest[0]))
    return max(1, round(median(rounds)))


def _cpu_ns(launch: Callable[[], object]) -> float:
    begun = perf_counter_ns()
    launch()
    return float(perf_counter_ns() - begun)


def _gpu_ns(torch: Any, launch: Callable[[], object]) -> float:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    for _ in range(LAUNCHES):
        launch()
    events[1].record()
    events[1].synchronize()
    return float(events[0].elapsed_time(events[1])) * 1e6 / LAUNCHES
