"""One simulation, event by event: NPUs, network, memory and the ranks' runs of one step of a graph.

This is the reference that the faster ways are tested against, and what runs every graph that they do not take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from analytical.collectives.algorithms import RUNS, Run
from analytical.collectives.custom import CustomRun
from analytical.collectives.models import Models
from analytical.collectives.plan import CollectivePlanner, Kind, Phase, RankPlanner
from analytical.collectives.streams import Collective, Stream, StreamUnit
from analytical.collectives.tree import TreeRun
from analytical.events.open_phases import GuardedEvents, GuardedTransport, OpenPhases
from analytical.events.program import Program, Task
from analytical.events.rank_run import RankRun
from analytical.machine.bus import Bus, EndpointBus
from analytical.machine.event_queue import EventQueue, LocalEvents
from analytical.machine.loggp import SharedBus
from analytical.machine.messages import Messenger, RendezvousMessenger, point_to_point_tag
from analytical.machine.network import AwareTransport, UnawareTransport
from analytical.machine.remote_memory import RemoteMemory
from converters.execution_graph import ABSENT, CollectiveType
from foundation.errors import SimulationError


class Simulation:
    """One step of one graph.

    `ranks` has for every rank its program, and by row the ns that nodes run for and the bytes that they load or store.
    `solve`: phases as a whole where that is possible (`open_phases`), else message by message.
    """

    def __init__(
        self,
        models: Models,
        ranks: Sequence[tuple[Program, Sequence[int], Sequence[int]]],
        groups: dict[int, tuple[int, ...]],
        *,
        solve: bool,
    ) -> None:
        machine = models.machine
        options = machine.options
        self.machine = machine
        self._custom = models.custom
        self.queue = EventQueue()
        self.transport: UnawareTransport | AwareTransport
        self._meetings: OpenPhases | None = None
        guarded: list[GuardedEvents] = []
        if solve:
            self.transport = GuardedTransport(models.delays, self.queue, guarded)
            self._meetings = OpenPhases(models.phases, self.queue, self.transport)
        elif options.aware:
            self.transport = AwareTransport(machine.network, self.queue)
        else:
            self.transport = UnawareTransport(models.delays, self.queue)
        messenger = RendezvousMessenger if options.rendezvous_protocol else Messenger
        self.messenger = messenger(self.transport, self.queue, machine.network.npus)
        self._endpoint_bus = EndpointBus(machine.system, options.injection_scale)
        self._memory = RemoteMemory(machine.memory)
        self._planner = CollectivePlanner(
            machine.network,
            machine.system,
            groups,
            options.num_queues_per_dim,
            machine.per_node_custom,
            models.rings,
        )
        self._planners: list[RankPlanner] = []
        self._units: list[StreamUnit] = []
        self._sizes = [sizes for _, _, sizes in ranks]
        self.rank_runs: list[RankRun] = []
        self.finish_order: list[RankRun] = []
        for rank, (program, runtime, _) in enumerate(ranks):
            if solve:
                guarded.append(GuardedEvents(self.queue))
            self._add_rank(rank, program, runtime, guarded[rank] if solve else LocalEvents(self.queue))

    def run(self) -> None:
        """Run to the end. Raises `SimulationError` where ASTRA-sim stops, hangs, crashes or never finishes."""
        for run in self.rank_runs:
            run.fire()
        if self.queue.next_time == 0:
            raise SimulationError(self._zero_delay())
        self.queue.run()
        self._check_end()

    START = 1
    """When `run_from` lets the first rank begin: at 0 nothing may take 0 ns."""

    def run_from(self, offsets: Mapping[int, int]) -> None:
        """Run only the ranks of `offsets`, each beginning that many ns after `START`."""
        for rank, offset in offsets.items():
            self.queue.schedule(self.START + offset, _fire, self.rank_runs[rank])
        self.queue.run()
        stuck = [rank for rank in offsets if self.rank_runs[rank].finished_ns is None]
        if stuck:
            raise SimulationError(f"rank {stuck[0]} never leaves the collective")

    def _check_end(self) -> None:
        if any(run.finished_ns is None for run in self.rank_runs):
            raise SimulationError(self._stuck())
        for run in self.rank_runs:
            check_ending(run)

    def issue_memory(self, run: RankRun, row: int) -> None:
        """Start a memory transaction."""
        size = self._sizes[run.rank][row]
        self._memory.issue(run.rank, run.events, size, run.complete, row)

    def issue_send(self, run: RankRun, row: int) -> None:
        """Start a SEND; it completes when the message has arrived."""
        program = run.program
        tag = point_to_point_tag(program.attribute("comm_tag", row))
        destination = run.rank + program.attribute("comm_dst_delta", row)
        self.messenger.send(tag, run.rank, destination, program.attribute("comm_size", row), (run.complete, row))

    def issue_receive(self, run: RankRun, row: int) -> None:
        """Post a RECV."""
        program = run.program
        tag = point_to_point_tag(program.attribute("comm_tag", row))
        source = run.rank + program.attribute("comm_src_delta", row)
        self.messenger.receive(tag, source, run.rank, program.attribute("comm_size", row), (run.complete, row))

    def issue_collective(self, run: RankRun, row: int) -> None:
        """Cut a collective into streams and queue them."""
        program, rank = run.program, run.rank
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
        collective = Collective(len(streams), run.complete, row)
        unit = self._units[rank]
        for number, phases in streams:
            unit.advance(Stream(unit, number, phases, collective))

    def finished(self, run: RankRun) -> None:
        """Note the order in which ranks finish."""
        self.finish_order.append(run)

    def _add_rank(self, rank: int, program: Program, runtime: Sequence[int], events: LocalEvents) -> None:
        options = self.machine.options
        queues = options.num_queues_per_dim
        self.rank_runs.append(RankRun(rank, program, runtime, events, self))
        self._planners.append(self._planner.rank_planner(rank))
        bus = self._make_bus(events)
        self._units.append(
            StreamUnit(
                rank,
                events,
                bus,
                self.messenger,
                queues * len(self.machine.network.npus_count),
                self.machine.concurrency,
                self._make_run,
            )
        )

    def _make_bus(self, events: LocalEvents) -> Bus:
        system, scale = self.machine.system, self.machine.options.injection_scale
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

    def _zero_delay(self) -> str:
        for run in self.rank_runs:
            for row in run.waiting_rows():
                return (
                    f"rank {run.rank}, {run.program.describe(row)}: something takes 0 ns at t = 0 (a COMP "
                    "that rounds to 0 ns, endpoint-delay 0, or latency 0 with a tiny message), where ASTRA-sim aborts; "
                    "make it at least 1 ns"
                )
        return "an event takes 0 ns at t = 0, where ASTRA-sim aborts; make it at least 1 ns"

    def _stuck(self) -> str:
        parts = []
        stuck = [run for run in self.rank_runs if run.finished_ns is None]
        for run in stuck[:4]:
            rows = run.waiting_rows()
            if rows:
                parts.append(f"rank {run.rank} waits in {self._waits(run, rows[0])}")
            else:
                first = run.program.describe(run.ready_rows()[0])
                parts.append(f"rank {run.rank} never issues {first}: its parent was skipped and no event follows")
        more = f"; {len(stuck) - 4} more ranks are stuck" if len(stuck) > 4 else ""
        return f"deadlock: {'; '.join(parts)}{more}"

    def _waits(self, run: RankRun, row: int) -> str:
        program = run.program
        text = program.describe(row)
        task = program.task[row]
        if task == Task.RECEIVE:
            size, tag = program.attribute("comm_size", row), program.attribute("comm_tag", row)
            source = run.rank + program.attribute("comm_src_delta", row)
            return f"{text} for {size} bytes with tag {tag} from rank {source}"
        if task == Task.SEND:
            return f"{text} to rank {run.rank + program.attribute('comm_dst_delta', row)}"
        members = self._members(program, row)
        return f"{text} over {members}: another member has not entered, or with another type, size or order"

    def _members(self, program: Program, row: int) -> str:
        """Say over whom a collective runs."""
        group, involved = program.attribute("comm_group", row), program.attribute("involved_dims", row)
        dimensions = range(len(self.machine.network.npus_count))
        taking_part = [at for at in dimensions if involved == ABSENT or involved >> at & 1]
        if group:
            return f"group {group}"
        if len(taking_part) == len(dimensions):
            return "all ranks"
        return f"dimension {' and '.join(map(str, taking_part))} of the network"


def _fire(run: RankRun) -> None:
    run.fire()


class Ended(Protocol):
    """A run that has ended, as `check_ending` looks at it."""

    rank: int
    program: Program
    finished_ns: int | None
    last_row: int | None


def check_ending(run: Ended) -> None:
    """Refuse an end that ASTRA-sim aborts at: its statistics throw on other than GPU compute and communication.

    The exception is caught where the last node ended in an event of the NPU, but not after a SEND or RECV or at t = 0.
    """
    program = run.program
    row = program.untimed_row
    if row is None:
        return
    last = None if run.last_row is None else program.task[run.last_row]
    if run.finished_ns and last not in (Task.SEND, Task.RECEIVE):
        return
    raise SimulationError(
        f"rank {run.rank} ends {'with a SEND or RECV' if run.finished_ns else 'at t = 0'} and holds "
        f"{program.describe(row)}: ASTRA-sim aborts in its statistics; end the rank with a COMP or a collective"
    )
