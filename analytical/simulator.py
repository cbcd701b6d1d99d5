"""One simulation, event by event: NPUs, network, memory and workloads of one step of a graph.

This is the reference that the faster ways (`phases`, `chains`) are tested against, and what runs every graph that they
do not take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analytical.algorithms import RUNS, Run
from analytical.bus import Bus, EndpointBus, endpoint_ns
from analytical.collective_plan import CollectivePlanner, Kind, Phase, RankPlanner, RingCache
from analytical.configuration import NetworkConfig, RemoteMemoryConfig, SystemConfig
from analytical.custom import CustomGraphs, CustomRun
from analytical.event_queue import EventQueue, LocalEvents
from analytical.loggp import SharedBus
from analytical.messages import Messenger, RendezvousMessenger, point_to_point_tag
from analytical.network import AwareTransport, DelayModel, UnawareTransport
from analytical.options import Options
from analytical.phases import PhaseModels
from analytical.program import Program, Task
from analytical.remote_memory import RemoteMemory
from analytical.solved import GuardedEvents, GuardedTransport, Meetings
from analytical.streams import Collective, Stream, StreamUnit
from analytical.tree import TreeRun
from analytical.workload import Workload, peer, priority_of
from converters.execution_graph import CollectiveType
from foundation.errors import SimulationError


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything but the graph. `per_node_custom`: node id -> prefix of a custom collective's graph."""

    network: NetworkConfig
    system: SystemConfig
    memory: RemoteMemoryConfig
    options: Options = field(default_factory=Options)
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


class Models:
    """What simulations of one configuration share: rings, and the phases solved so far."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.delays = DelayModel(configuration.network)
        self.rings = RingCache()
        self.custom = CustomGraphs()
        self.phases = PhaseModels(self.delays, configuration.system, configuration.options.injection_scale)


class Simulation:
    """One step of one graph.

    `ranks` has for every rank its program, and by row the ns that nodes run for and the bytes that they load or store.
    `solve`: phases as a whole where that is possible (`solved`), else message by message.
    """

    def __init__(
        self,
        models: Models,
        ranks: Sequence[tuple[Program, Sequence[int], Sequence[int]]],
        groups: dict[int, tuple[int, ...]],
        *,
        solve: bool,
    ) -> None:
        configuration = models.configuration
        options = configuration.options
        self.configuration = configuration
        self._custom = models.custom
        self.queue = EventQueue()
        self.transport: UnawareTransport | AwareTransport
        self._meetings: Meetings | None = None
        guarded: list[GuardedEvents] = []
        if solve:
            self.transport = GuardedTransport(models.delays, self.queue, guarded)
            self._meetings = Meetings(models.phases, self.queue, self.transport)
        elif options.aware:
            self.transport = AwareTransport(configuration.network, self.queue)
        else:
            self.transport = UnawareTransport(models.delays, self.queue)
        messenger = RendezvousMessenger if options.rendezvous_protocol else Messenger
        self.messenger = messenger(self.transport, self.queue, configuration.network.npus)
        self._endpoint_bus = EndpointBus(configuration.system, options.injection_scale)
        self._memory = RemoteMemory(configuration.memory)
        self._planner = CollectivePlanner(
            configuration.network,
            configuration.system,
            groups,
            options.num_queues_per_dim,
            configuration.per_node_custom,
            models.rings,
        )
        self._planners: list[RankPlanner] = []
        self._priorities: list[int] = []
        self._units: list[StreamUnit] = []
        self._sizes = [sizes for _, _, sizes in ranks]
        self.workloads: list[Workload] = []
        self.finish_order: list[Workload] = []
        for rank, (program, runtime, _) in enumerate(ranks):
            if solve:
                guarded.append(GuardedEvents(self.queue))
            self._add_rank(rank, program, runtime, guarded[rank] if solve else LocalEvents(self.queue))

    def run(self) -> None:
        """Run to the end. Raises `SimulationError` where ASTRA-sim stops, hangs, crashes or never finishes."""
        for workload in self.workloads:
            workload.fire()
        if self.queue.next_time == 0:
            raise SimulationError(self._zero_delay())
        self.queue.run()
        self._check_end()

    START = 1
    """When `run_from` lets the first rank begin: at 0 nothing may take 0 ns."""

    def run_from(self, offsets: Mapping[int, int]) -> None:
        """Run only the ranks of `offsets`, each beginning that many ns after `START`."""
        for rank, offset in offsets.items():
            self.queue.schedule(self.START + offset, _fire, self.workloads[rank])
        self.queue.run()
        stuck = [rank for rank in offsets if self.workloads[rank].finished_ns is None]
        if stuck:
            raise SimulationError(f"rank {stuck[0]} never leaves the collective")

    def _check_end(self) -> None:
        if any(workload.finished_ns is None for workload in self.workloads):
            raise SimulationError(self._stuck())
        for workload in self.workloads:
            check_ending(workload)

    def issue_memory(self, workload: Workload, row: int) -> None:
        """Start a memory transaction."""
        size = self._sizes[workload.rank][row]
        self._memory.issue(workload.rank, workload.events, size, workload.complete, row)

    def issue_send(self, workload: Workload, row: int) -> None:
        """Start a SEND; it completes when the message has arrived."""
        program = workload.program
        tag = point_to_point_tag(program.attribute("comm_tag", row))
        destination = peer(workload, program.attribute("comm_dst_delta", row))
        self.messenger.send(
            tag, workload.rank, destination, program.attribute("comm_size", row), (workload.complete, row)
        )

    def issue_receive(self, workload: Workload, row: int) -> None:
        """Post a RECV."""
        program = workload.program
        tag = point_to_point_tag(program.attribute("comm_tag", row))
        source = peer(workload, program.attribute("comm_src_delta", row))
        self.messenger.receive(
            tag, source, workload.rank, program.attribute("comm_size", row), (workload.complete, row)
        )

    def issue_collective(self, workload: Workload, row: int) -> None:
        """Cut a collective into streams and queue them."""
        program, rank = workload.program, workload.rank
        try:
            streams = self._planner.plan(
                self._planners[rank],
                CollectiveType(program.attribute("comm_type", row)),
                program.attribute("comm_size", row),
                program.attribute("involved_dims", row),
                program.attribute("comm_group", row),
                program.attribute("node_id", row),
            )
        except SimulationError as error:
            raise SimulationError(f"rank {rank}, {program.describe(row)}: {error}") from None
        priority = self._priority(rank, priority_of(program, row))
        collective = Collective(len(streams), workload.complete, row)
        unit = self._units[rank]
        for number, phases in streams:
            unit.advance(Stream(unit, number, phases, priority, collective))

    def finished(self, workload: Workload) -> None:
        """Note the order in which ranks finish."""
        self.finish_order.append(workload)

    def _add_rank(self, rank: int, program: Program, runtime: Sequence[int], events: LocalEvents) -> None:
        options = self.configuration.options
        queues = options.num_queues_per_dim
        self.workloads.append(Workload(rank, program, runtime, events, self))
        self._planners.append(self._planner.rank_planner(rank))
        self._priorities.append(0)
        bus = self._make_bus(events)
        self._units.append(
            StreamUnit(
                rank,
                events,
                bus,
                self.messenger,
                queues * len(self.configuration.network.npus_count),
                self.configuration.concurrency,
                self._make_run,
            )
        )

    def _make_bus(self, events: LocalEvents) -> Bus:
        system, scale = self.configuration.system, self.configuration.options.injection_scale
        return SharedBus(events, system, scale) if system.model_shared_bus else self._endpoint_bus

    def _make_run(self, stream: Stream, phase: Phase) -> Run:
        if self._meetings is not None:
            solved = self._meetings.make_run(stream, phase)
            if solved is not None:
                return solved
        kind = phase.algorithm.kind
        if kind is Kind.TREE:
            return TreeRun(stream, phase)
        if kind is Kind.CUSTOM:
            return CustomRun(stream, phase, self._custom)
        return RUNS[kind](stream, phase)

    def _priority(self, rank: int, explicit: int) -> int:
        """Return the priority of a rank's next collective: LIFO counts up, FIFO down."""
        policy = self.configuration.system.scheduling_policy
        if policy == "EXPLICIT":
            return explicit
        priority = self._priorities[rank]
        self._priorities[rank] += 1 if policy == "LIFO" else -1
        return priority

    def _zero_delay(self) -> str:
        for workload in self.workloads:
            for row in workload.waiting_rows():
                return (
                    f"rank {workload.rank}, {workload.program.describe(row)}: something takes 0 ns at t = 0 (a COMP "
                    "that rounds to 0 ns, endpoint-delay 0, or latency 0 with a tiny message), where ASTRA-sim aborts; "
                    "make it at least 1 ns"
                )
        return "an event takes 0 ns at t = 0, where ASTRA-sim aborts; make it at least 1 ns"

    def _stuck(self) -> str:
        parts = []
        stuck = [workload for workload in self.workloads if workload.finished_ns is None]
        for workload in stuck[:4]:
            rows = workload.waiting_rows()
            if rows:
                parts.append(f"rank {workload.rank} waits in {self._waits(workload, rows[0])}")
            else:
                first = workload.program.describe(workload.ready_rows()[0])
                parts.append(f"rank {workload.rank} never issues {first}: its parent was skipped and no event follows")
        more = f"; {len(stuck) - 4} more ranks are stuck" if len(stuck) > 4 else ""
        return f"deadlock: {'; '.join(parts)}{more}"

    def _waits(self, workload: Workload, row: int) -> str:
        program = workload.program
        text = program.describe(row)
        task = program.task[row]
        if task == Task.RECEIVE:
            size, tag = program.attribute("comm_size", row), program.attribute("comm_tag", row)
            source = peer(workload, program.attribute("comm_src_delta", row))
            return f"{text} for {size} bytes with tag {tag} from rank {source}"
        if task == Task.SEND:
            return f"{text} to rank {peer(workload, program.attribute('comm_dst_delta', row))}"
        group = program.attribute("comm_group", row)
        members = f"group {group}" if group else "all ranks"
        return f"{text} over {members}: another member has not entered, or with another type, size or order"


def _fire(workload: Workload) -> None:
    workload.fire()


def check_ending(workload: Workload) -> None:
    """Refuse an end that ASTRA-sim aborts at: its statistics throw on other than GPU compute and communication.

    The exception is caught where the last node ended in an event of the NPU, but not after a SEND or RECV or at t = 0.
    """
    program = workload.program
    row = program.untimed_row
    if row is None:
        return
    last = None if workload.last_row is None else program.task[workload.last_row]
    if workload.finished_ns and last not in (Task.SEND, Task.RECEIVE):
        return
    raise SimulationError(
        f"rank {workload.rank} ends {'with a SEND or RECV' if workload.finished_ns else 'at t = 0'} and holds "
        f"{program.describe(row)}: ASTRA-sim aborts in its statistics; end the rank with a COMP or a collective"
    )
