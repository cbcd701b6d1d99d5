"""What `io_algo` means: the network.yml and system.json of the devices that ReaLLM would let all-reduce that way.

With n bytes, p devices that share a stage by tensor parallelism, a link of latency a and bandwidth B:

    ring        2 (p - 1) (a + n / (p B))           what a run has without files of its own
    2d_ring     rings along both sides of a square  p is a square
    multishot   2 (a + n (p - 1) / (p B))           scattered in one step, gathered in one; p - 1 peers share B

ReaLLM's formulas are 2 (s - 1) (2 a + n / (s B)) with s = ceil(sqrt(p)) for the second, which leaves out the bytes of
the second side, and 2 (a + n / B) for the third; its B and a are an H100's whatever the device, here the device's own.
"""

from __future__ import annotations

import math
from dataclasses import replace

from astra_files.network import NetworkConfig
from astra_files.system import COLLECTIVES, SystemConfig
from orchestrator.reallm.degrees import Degrees
from trace_gen.hardware import Hardware

_ALGORITHM = {"2d_ring": "ring", "multishot": "direct"}


def needs_files(io_algorithm: str, degrees: Degrees) -> bool:
    """Whether the network is another than the one that links make anyway: rings over fully connected devices."""
    return io_algorithm in _ALGORITHM and degrees.sharing > 1


def why_not(io_algorithm: str, degrees: Degrees) -> str:
    """Return why these degrees have no such network, "" where they have."""
    side = math.isqrt(degrees.sharing)
    if io_algorithm == "2d_ring" and degrees.sharing > 1 and side * side != degrees.sharing:
        return f"2d_ring over {degrees.sharing} devices that share a stage: they are no square"
    return ""


def network_files(io_algorithm: str, degrees: Degrees, hardware: Hardware) -> tuple[NetworkConfig, SystemConfig]:
    """Return both files: tensor-parallel devices on the innermost dimensions, then context, then stages."""
    bandwidth, latency = hardware.link_bandwidth / 2**30, float(hardware.link_latency_ns)
    sharing = degrees.sharing
    inner = [(sharing, bandwidth / max(1, sharing - 1))]
    if io_algorithm == "2d_ring":
        inner = [(math.isqrt(sharing), bandwidth)] * 2
    outer = [(size, bandwidth) for size in (degrees.context, degrees.pipeline)]
    dimensions = [(size, width) for size, width in [*inner, *outer] if size > 1]
    sizes, widths = zip(*dimensions, strict=True)
    network = NetworkConfig(
        topology=("FullyConnected",) * len(sizes),
        npus_count=sizes,
        bandwidth=widths,
        latency=(latency,) * len(sizes),
    )
    algorithms = ["ring"] * len(sizes)
    algorithms[: len(inner)] = [_ALGORITHM[io_algorithm]] * len(inner)
    return network, replace(_SYSTEM, implementations=dict.fromkeys(COLLECTIVES, tuple(algorithms)))


_SYSTEM = SystemConfig(
    scheduling_policy="LIFO",
    collective_optimization="localBWAware",
    endpoint_delay=10,
    preferred_dataset_splits=1,
    roofline_enabled=True,
)
"""One chunk: ReaLLM's formulas have no pipelining of chunks, which would add a latency each."""
