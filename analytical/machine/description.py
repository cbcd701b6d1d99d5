"""The machine that graphs are simulated on: the three files and the options, and which short cuts it allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field

from analytical.machine.bus import endpoint_ns
from analytical.machine.options import Options
from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything but the graph. `per_node_custom`: node id -> prefix of a custom collective's graph."""

    network: NetworkConfig
    system: SystemConfig
    memory: RemoteMemoryConfig
    options: Options
    per_node_custom: Mapping[int, str] = field(default_factory=dict)

    @property
    def concurrency(self) -> int:
        """Streams that a queue runs at once."""
        return math.ceil(self.system.active_chunks_per_dimension / self.options.num_queues_per_dim)

    @property
    def solvable(self) -> bool:
        """Whether phases can be solved as a whole: messages and packets never wait for each other."""
        options = self.options
        return not (options.aware or options.rendezvous_protocol or self.system.model_shared_bus)

    @property
    def chainable(self) -> bool:
        """Whether a collective on idle NPUs takes a time that does not depend on the ones before it.

        It does with several queues or two trees, which take turns; dimensions left out by short lists or joined by
        algorithms over all NPUs are left to the event queue too.
        """
        system = self.system
        plain = not (system.custom or self.per_node_custom or system.replay_only or system.model_shared_bus)
        lists = system.implementations.values()
        whole = all(len(row) == len(self.network.npus_count) for row in lists)
        turns = any(name == "doubleBinaryTree" or name.startswith("one") for row in lists for name in row)
        single = self.options.num_queues_per_dim == 1 and not self.options.aware
        return plain and whole and not turns and single and endpoint_ns(system, self.options.injection_scale) > 0
