"""network.yml, system.json and memory.json: read, checked as a machine, written and read again; and what they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analytical.embedded import EmbeddedBackend
from analytical.machine.description import Machine
from analytical.machine.options import parse_options
from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.per_node import read_per_node
from astra_files.system import SystemConfig
from benchmarks.fuzz.readers.graphs import small_graph
from benchmarks.fuzz.target import Target, targets
from foundation.errors import SimulationError, UserError

NETWORK = "topology: [ Ring ]\nnpus_count: [ 2 ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n"
MEMORY = '{"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 50}'
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
SYSTEM = (
    '{"scheduling-policy": "LIFO", "collective-optimization": "baseline", "endpoint-delay": 10, '
    '"active-chunks-per-dimension": 1, "preferred-dataset-splits": 1, "local-mem-bw": 1600, "roofline-enabled": 1, '
    '"peak-perf": 1, ' + ", ".join(f'"{kind}-implementation": ["ring"]' for kind in _KINDS) + "}"
)
_MOST_NPUS = 64


def machine(network: NetworkConfig | None = None, system: SystemConfig | None = None,
            memory: RemoteMemoryConfig | None = None) -> Machine:  # fmt: skip
    """Return a machine of two NPUs, but for the parts that are given."""
    settings = system or SystemConfig.from_text(SYSTEM)
    return Machine(
        network or NetworkConfig.from_text(NETWORK),
        settings,
        memory or RemoteMemoryConfig.from_text(MEMORY),
        parse_options({}),
        read_per_node(settings),
    )


def _simulate(one: Machine) -> None:
    if one.network.npus > _MOST_NPUS:
        return
    found = EmbeddedBackend(one).simulate(small_graph(one.network.npus))
    assert (np.asarray(found.finish_ns) >= 0).all()


def _network(path: Path) -> None:
    network = NetworkConfig.from_file(path)
    assert NetworkConfig.from_text(network.to_text()) == network
    _simulate(machine(network=network))


def _system(path: Path) -> None:
    system = SystemConfig.from_file(path)
    _simulate(machine(system=system))


def _memory(path: Path) -> None:
    memory = RemoteMemoryConfig.from_file(path)
    assert RemoteMemoryConfig.from_text(memory.to_text()) == memory
    _simulate(machine(memory=memory))


def _per_node(path: Path) -> None:
    text = SYSTEM.replace('"peak-perf": 1', f'"per-node-custom-implementation": "{path}", "peak-perf": 1')
    read_per_node(SystemConfig.from_text(text))


_ENDS = (UserError, SimulationError)
targets.register("network")(Target("network.yml", _network, "network.yml", _ENDS))
targets.register("system")(Target("system.json", _system, "system.json", _ENDS))
targets.register("memory")(Target("memory.json", _memory, "memory.json", _ENDS))
targets.register("per_node")(Target("the file of per-node custom collectives", _per_node, "nodes.yml"))
