"""A device of PyTorch: a GPU, whose kernels are timed with CUDA graphs and events, or the CPU, with a timer.

On a GPU a launch is captured into a CUDA graph so often that the graph takes a millisecond or more, and the graph is
replayed between two events: what the host takes to launch is left out, as engines leave it out. What cannot be captured
is launched as it is, and its timing includes gaps. The median of several replays holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from statistics import median
from time import perf_counter, perf_counter_ns

from foundation.errors import UserError
from profiler import gpu_state
from profiler.bench import Bench, Launch, kernels
from profiler.device import Facts, Timing
from profiler.work import Kernel, Work

WARM_UPS, REPEATS = 3, 7
GRAPH_NS, MOST_LAUNCHES = 2e6, 200
"""A graph takes at least this long, but holds no more launches than this."""
STEADY, STEADY_WINDOWS = 0.01, 3
"""Warm: so many windows in a row differ by no more than this share."""
GPU_WARM_UP, CPU_WARM_UP = (4096, 1.0, 60.0), (512, 0.05, 0.5)
"""Width of the matrices that are multiplied, seconds of a window, and seconds after which warming up ends anyhow."""
CPU_MEMORY_BYTES = 2**31
USABLE = 0.6
"""Share of a GPU's memory for the KV cache, the rest being for weights and what kernels need besides."""
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class TorchDevice:
    """`profiler.device.Device` of PyTorch's device `name` (``cpu``, ``cuda:0``), computing in `dtype`.

    Raises `UserError` where PyTorch is missing, or the device is.
    """

    def __init__(self, name: str, dtype: str) -> None:
        # PyTorch's profiler otherwise writes a line each time that it starts.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        try:
            import torch
        except ImportError:
            raise UserError("PyTorch is not installed", fix="install it: pip install 'orrery-sim[profiler]'") from None
        self._torch, self._name, self._dtype = torch, name, dtype
        self._on_gpu = name.startswith("cuda")
        if self._on_gpu and not torch.cuda.is_available():
            fix = "run it where there is one, or give --device cpu"
            raise UserError("PyTorch finds no GPU here", field="--device", fix=fix)
        self._index = int(name.partition(":")[2] or 0)
        if self._on_gpu and self._index >= torch.cuda.device_count():
            what = f"there are {torch.cuda.device_count()} GPUs here"
            raise UserError(what, field="--device", fix="they count from cuda:0")
        # Asked before this process uses the GPU: in a container its own number may look like a stranger's.
        self._busy = gpu_state.others(self._uuid()) if self._on_gpu else ""
        if self._on_gpu:
            torch.cuda.set_device(self._index)
        self._bench = Bench(torch, name, getattr(torch, _DTYPES[dtype]))
        self._kernel: Kernel | None = None

    def identity(self) -> Facts:
        """See `Device.identity`."""
        torch = self._torch
        facts: dict[str, str | int | float] = {"dtype": self._dtype, "torch": str(torch.__version__)}
        if not self._on_gpu:
            return {"device": "cpu", "threads": torch.get_num_threads(), **facts}
        known = torch.cuda.get_device_properties(self._index)
        gpu = {"device": known.name, "compute_units": known.multi_processor_count, "memory_bytes": known.total_memory}
        capability = ".".join(map(str, torch.cuda.get_device_capability(self._index)))
        driver = gpu_state.query(self._uuid(), ("driver_version",)).get("driver_version", "unknown")
        return {**gpu, "capability": capability, "driver": driver, "cuda": str(torch.version.cuda), **facts}

    def clocks(self) -> Facts:
        """See `Device.clocks`."""
        return gpu_state.query(self._uuid(), gpu_state.CLOCKS) if self._on_gpu else {}

    def busy(self) -> str:
        """See `Device.busy`."""
        return self._busy

    def memory_bytes(self) -> int:
        """See `Device.memory_bytes`."""
        if not self._on_gpu:
            return CPU_MEMORY_BYTES
        return int(self._torch.cuda.get_device_properties(self._index).total_memory * USABLE)

    def warm_up(self) -> float:
        """See `Device.warm_up`."""
        width, window_s, longest_s = GPU_WARM_UP if self._on_gpu else CPU_WARM_UP
        left, right = self._bench.random(width, width), self._bench.random(width, width)
        begun, rates = perf_counter(), [0.0]
        while perf_counter() - begun < longest_s and not is_steady(rates):
            rates.append(self._launches_a_second(lambda: left @ right, window_s))
        return perf_counter() - begun

    def time(self, work: Work, *, names: bool) -> Timing:
        """See `Device.time`."""
        if work.kernel != self._kernel:
            self._bench.forget()
            self._kernel = work.kernel
        with self._holding(work):
            launch = kernels.get(work.kernel.name)(self._bench, work.kernel.shape, work.sizes)
            for _ in range(WARM_UPS):
                launch()
            self._wait()
            ns = self._gpu_ns(launch) if self._on_gpu else _timed_ns(launch)
            return Timing(ns, self._names(launch) if names else ())

    @contextmanager
    def _holding(self, work: Work) -> Iterator[None]:
        """Keep nothing for training; what does not fit into memory is a `UserError`."""
        try:
            with self._torch.inference_mode():
                yield
        except self._torch.OutOfMemoryError as error:
            self._bench.forget()
            fix = "give a smaller --max_context, --max_cached or --max_tokens"
            raise UserError(f"{work} does not fit into the memory of {self._name}", fix=fix) from error

    def _gpu_ns(self, launch: Launch) -> float:
        once = self._between_events(launch)
        launches = max(1, min(MOST_LAUNCHES, int(GRAPH_NS / max(once, 1.0))))
        replay = self._captured(launch, launches) or _repeated(launch, launches)
        replay()
        return median(self._between_events(replay) for _ in range(REPEATS)) / launches

    def _captured(self, launch: Launch, launches: int) -> Callable[[], object] | None:
        """Return what replays so many launches; None where they cannot be captured."""
        graph = self._torch.cuda.CUDAGraph()
        with suppress(RuntimeError):
            with self._torch.cuda.graph(graph):
                for _ in range(launches):
                    launch()
            return lambda: graph.replay()
        self._wait()
        return None

    def _between_events(self, run: Callable[[], object]) -> float:
        """Return the time on the GPU (ns)."""
        events = [self._torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        run()
        events[1].record()
        events[1].synchronize()
        return float(events[0].elapsed_time(events[1])) * 1e6

    def _names(self, launch: Launch) -> tuple[str, ...]:
        """Return the names of kernels, as PyTorch's own profiler tells them: on a CPU, of operators."""
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CUDA] if self._on_gpu else [ProfilerActivity.CPU]
        with profile(activities=activities) as found:
            launch()
            self._wait()
        wanted = "CUDA" if self._on_gpu else "CPU"
        return tuple(dict.fromkeys(event.name for event in found.events() if event.device_type.name == wanted))

    def _launches_a_second(self, launch: Launch, window_s: float) -> float:
        begun, count = perf_counter(), 0
        while perf_counter() - begun < window_s:
            launch()
            self._wait()
            count += 1
        return count / (perf_counter() - begun)

    def _wait(self) -> None:
        if self._on_gpu:
            self._torch.cuda.synchronize(self._index)

    def _uuid(self) -> str:
        known = self._torch.cuda.get_device_properties(self._index)
        return f"GPU-{known.uuid}" if hasattr(known, "uuid") else str(self._index)


def is_steady(rates: list[float]) -> bool:
    """Return whether the last windows' `rates` differ by so little that the device is warm."""
    last = rates[-STEADY_WINDOWS:]
    return len(rates) > STEADY_WINDOWS and max(last) - min(last) <= STEADY * max(last)


def _timed_ns(launch: Launch) -> float:
    """Return the median time of a launch on this CPU (ns)."""

    def once() -> int:
        begun = perf_counter_ns()
        launch()
        return max(1, perf_counter_ns() - begun)

    return float(median(once() for _ in range(REPEATS)))


def _repeated(launch: Launch, launches: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(launches):
            launch()

    return run
