"""The effective network.yml, system.json and memory.json of a run: made from the flags or a node, or the user's own.

The user's files are used as given, with one change: unless the backend's own roofline is to decide
(`--perf_model backend`), system.json gets ``roofline-enabled: 1`` and ``peak-perf: 1``, the setting in which a
compute node's `num_ops` says its nanoseconds exactly (see `converters.execution_graph`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.system import COLLECTIVES, SystemConfig
from foundation.errors import InternalError, UserError
from foundation.files import atomic_write
from foundation.printable import brief
from foundation.records import dataclass
from orchestrator.cluster.node_network import node_network
from orchestrator.cluster.nodes import load_node
from orchestrator.fabrics.carrying import ENDPOINT_DELAY_NS, CarriedCurves, carrying_system
from orchestrator.fabrics.choosing import followed
from orchestrator.settings.engine import ModelSettings, NetworkSettings, ParallelismSettings
from trace_gen.hardware import Hardware
from trace_gen.precision import Arithmetic

DATASET_SPLITS = 4
_LEAST_MEMORY_BANDWIDTH = 1.0
"""GB/s. Below 2/3 GB/s the backend's memory roof would stretch a node of 1 ns."""

_SHOWN_KEYS = 200
"""Of the keys that nothing reads, so many characters are shown."""


@dataclass(frozen=True, slots=True)
class Configurations:
    """The three effective files. `curves`: what collectives take, where a fabric says it; else `no_curves`: why not."""

    network: NetworkConfig
    system: SystemConfig
    memory: RemoteMemoryConfig
    curves: CarriedCurves | None = None
    no_curves: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about files that are right but may not say what was meant."""
        found = []
        dimensions = len(self.network.npus_count)
        short = [name for name, row in self.system.implementations.items() if len(row) < dimensions]
        if self.no_curves:
            found.append(f"collectives follow no measured curve but the links' figures: {self.no_curves}")
        if short:
            listed = ", ".join(f"{name}-implementation" for name in short)
            found.append(f"{listed} of the system file cover only the first of {dimensions} network dimensions")
        for name, other in (("system", self.system.other), ("memory", self.memory.other)):
            if other:
                found.append(f"nothing reads {brief(list(other), _SHOWN_KEYS)} of the {name} file, as in ASTRA-sim")
        return tuple(found)

    def texts(self) -> dict[str, str]:
        """Return the text of network.yml, system.json and memory.json."""
        return {
            "network.yml": self.network.to_text(),
            "system.json": self.system.to_text(),
            "memory.json": self.memory.to_text(),
        }

    def write(self, folder: Path) -> None:
        """Write network.yml, system.json and memory.json to `folder`."""
        for name, text in self.texts().items():
            with atomic_write(folder / name) as stream:
                stream.write(text)


def effective_configurations(
    model: ModelSettings,
    shared: ParallelismSettings,
    given: NetworkSettings,
    hardware: Hardware,
    *,
    backend_decides: bool,
    unfit: str = "",
) -> Configurations:
    """Return the effective files of an engine; a user's file that is wrong or does not fit is a `UserError`.

    `backend_decides`: latencies are left to the backend's own roofline; `unfit`: why the backend could not follow a
    fabric's curves, "" where it can.
    """
    memory = (
        RemoteMemoryConfig.from_file(given.remote_memory)
        if given.remote_memory
        else RemoteMemoryConfig(memory_type="PER_NPU_MEMORY_EXPANSION", remote_mem_bw=int(_decided(given.remote_bw)))
    )
    network = _network(shared, given, link_figures(given, hardware))
    system = _system(model, given, hardware, len(network.npus_count))
    decides = "--perf_model backend leaves times to the network" if backend_decides else ""
    curves = followed(shared, given, network, unfit or decides)
    if isinstance(curves, CarriedCurves):
        system = carrying_system(system, len(network.npus_count))
    _check_dimensions(given, network, system)
    if given.system is not None and shared.stage_size > 1:
        _check_collectives(given, shared, system)
    if not backend_decides:
        _check_exact(given, system)
        system = replace(system, roofline_enabled=True, peak_perf=1.0)
    if isinstance(curves, CarriedCurves):
        return Configurations(network, system, memory, curves)
    return Configurations(network, system, memory, no_curves=curves.why)


def link_figures(given: NetworkSettings, hardware: Hardware) -> tuple[float, float]:
    """Return GB/s (2^30) and ns of a link: by hand or the device's own."""
    bandwidth = hardware.link_bandwidth / 2**30 if given.link_bw is None else given.link_bw
    return bandwidth, float(hardware.link_latency_ns) if given.link_latency is None else given.link_latency


def _network(shared: ParallelismSettings, given: NetworkSettings, link: tuple[float, float]) -> NetworkConfig:
    axes = (shared.tensor, shared.context, shared.data, shared.stages)
    if given.network is None and given.node is not None:
        return node_network(load_node(given.node), axes, given.nodes)
    if given.network is None:
        dims = tuple(size for size in axes if size > 1) or (1,)
        return NetworkConfig(
            topology=("FullyConnected",) * len(dims),
            npus_count=dims,
            bandwidth=(link[0],) * len(dims),
            latency=(link[1],) * len(dims),
        )
    network = NetworkConfig.from_file(given.network)
    ranks = shared.npus * shared.data
    if network.npus != ranks:
        engines = f" for each of {shared.data} data-parallel engines" if shared.data > 1 else ""
        number = f", or give --npu_num {network.npus // shared.data}" if network.npus % shared.data == 0 else ""
        raise UserError(
            f"the network has {network.npus} NPUs ({' x '.join(map(str, network.npus_count))}), "
            f"--npu_num is {shared.npus}{engines}",
            path=given.network,
            field="npus_count",
            fix=f"make their product {ranks}{number}",
        )
    return network


def _decided(value: float | None) -> float:
    if value is None:
        raise InternalError("the settings of the network are not decided")
    return value


def _system(model: ModelSettings, network: NetworkSettings, hardware: Hardware, dimensions: int) -> SystemConfig:
    """Return the user's system, with the device's memory bandwidth and rate where it has none, or one of our making."""
    bandwidth = (model.local_bw * 1e9 if model.local_bw else hardware.memory_bandwidth) / 1e9
    if network.system is not None:
        given = SystemConfig.from_file(network.system)
        peak = given.peak_perf or hardware.rate(Arithmetic.of(model.bits)) / 1e12
        return replace(given, local_mem_bw=given.local_mem_bw or bandwidth, peak_perf=peak)
    return SystemConfig(
        scheduling_policy="LIFO",
        collective_optimization="localBWAware",
        endpoint_delay=ENDPOINT_DELAY_NS,
        preferred_dataset_splits=DATASET_SPLITS,
        local_mem_bw=bandwidth,
        peak_perf=hardware.rate(Arithmetic.of(model.bits)) / 1e12,
        roofline_enabled=True,
        implementations=dict.fromkeys(COLLECTIVES, ("ring",) * dimensions),
    )


def _check_dimensions(given: NetworkSettings, network: NetworkConfig, system: SystemConfig) -> None:
    """Refuse more algorithms than the network has dimensions: ASTRA-sim aborts on them."""
    dimensions = len(network.npus_count)
    for name, row in system.implementations.items():
        if len(row) > dimensions:
            raise UserError(
                f"{len(row)} algorithms for a network of {dimensions} dimension{'s' if dimensions > 1 else ''}",
                path=given.system,
                field=f"{name}-implementation",
                fix="write one a dimension",
            )


def _check_collectives(given: NetworkSettings, shared: ParallelismSettings, system: SystemConfig) -> None:
    """Refuse a user's system.json without what iterations of NPUs that share a stage need."""
    gathered = shared.expert > 1 and shared.exchange == "allgather"
    needed = {"all-reduce": shared.tensor > 1, "all-gather": shared.member_size > 1 or gathered}
    needed["reduce-scatter"] = shared.context > 1 or (shared.tensor > 1 and shared.sequence_parallel) or gathered
    needed["all-to-all"] = shared.expert > 1 and not gathered
    for name in (name for name, wanted in needed.items() if wanted):
        if not system.implementations.get(name) and name not in system.custom:
            raise UserError(
                f"missing, but {shared.stage_size} NPUs share a stage",
                path=given.system,
                field=f"{name}-implementation",
                fix='write one algorithm a dimension, for example ["ring"]',
            )
    if system.preferred_dataset_splits < 1:
        raise UserError("missing or 0", path=given.system, field="preferred-dataset-splits", fix="write 1 or more")


def _check_exact(given: NetworkSettings, system: SystemConfig) -> None:
    """Refuse a system.json with which the performance model's nanoseconds would not come out as they are."""
    if system.replay_only:
        raise UserError(
            "replay-only lets durations of .et files decide, but latencies come from the performance model",
            path=given.system,
            field="replay-only",
            fix="write 0",
        )
    if system.local_mem_bw < _LEAST_MEMORY_BANDWIDTH:
        raise UserError(
            f"{system.local_mem_bw:g} GB/s would stretch every operator",
            path=given.system,
            field="local-mem-bw",
            fix="write the device's memory bandwidth, GB/s, or leave it out",
        )
