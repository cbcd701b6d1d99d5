"""How a collective is cut into chunks, and each chunk into phases over the dimensions of the network.

Source: `Sys::generate_collective`, `determine_chunk_size`, QueueLevelHandler.cc, GeneralComplexTopology.cc and
CommunicatorGroup.cc of ASTRA-sim. A chunk becomes a stream; a phase is one algorithm over one ring (or tree) of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from string import digits

from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from converters.execution_graph import ABSENT, CollectiveType
from foundation.errors import SimulationError
from foundation.records import dataclass

AR, AG, RS, A2A = (
    CollectiveType.ALL_REDUCE,
    CollectiveType.ALL_GATHER,
    CollectiveType.REDUCE_SCATTER,
    CollectiveType.ALL_TO_ALL,
)
COLLECTIVE_KEYS = {AR: "all-reduce", AG: "all-gather", RS: "reduce-scatter", A2A: "all-to-all"}
DEFAULT_DIMENSIONS = 4
"""A collective without `involved_dim` takes part in this many dimensions."""

GROUP_STREAMS = 1_000_000
"""Streams of group g are numbered from g times this; those of all ranks from 0."""


class Kind(Enum):
    """The algorithm of a phase."""

    RING = "ring"
    DIRECT = "direct"
    HALVING_DOUBLING = "halvingDoubling"
    TREE = "doubleBinaryTree"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One entry of an implementation list: `window` peers at once (direct; None for all), over all NPUs (`whole`)."""

    kind: Kind
    window: int | None = None
    whole: bool = False
    custom: str = ""

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """Read a checked entry of system.json; of a number after "direct" upstream reads five digits."""
        whole = text.startswith("one")
        name = text[3].lower() + text[4:] if whole else text
        if name.startswith(Kind.DIRECT.value):
            window = "".join(_leading_digits(name.removeprefix(Kind.DIRECT.value)[:5]))
            return cls(Kind.DIRECT, int(window) if window else None, whole)
        return cls(Kind(name), None, whole)


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """The ranks that a phase runs over, in ring order; one object a ring, compared by identity.

    `fast`: a sub-group's ring, whose bus takes 10 ns whatever the endpoint delay.
    """

    ranks: tuple[int, ...]
    fast: bool = False


class RingCache:
    """Makes each ring once, so that what is known of a ring can be kept by its identity."""

    def __init__(self) -> None:
        self._rings: dict[tuple[Sequence[int], bool], Ring] = {}

    def get(self, ranks: Sequence[int], fast: bool) -> Ring:
        """Return the ring over `ranks` (a tuple or a range)."""
        ring = self._rings.get((ranks, fast))
        if ring is None:
            ring = self._rings[ranks, fast] = Ring(tuple(ranks), fast)
        return ring


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a stream as one rank runs it; the same for every rank of the ring but for `position`.

    `size` is the data before the phase in bytes; `queue` the queue it waits in; `parity` which of the two trees.
    """

    algorithm: Algorithm
    collective: CollectiveType
    ring: Ring
    position: int
    size: int
    queue: int
    clockwise: bool
    parity: int = 0

    @property
    def final_size(self) -> int:
        """Bytes of data after the phase."""
        if self.algorithm.kind is Kind.TREE:
            return self.size
        if self.collective is AG:
            return self.size * len(self.ring.ranks)
        return self.size // len(self.ring.ranks) if self.collective is RS else self.size


class QueueAllocator:
    """Hands out the queues of each dimension (`count` a dimension): to all phases in turn, or by halves."""

    __slots__ = ("_count", "_first", "_last", "_next")

    def __init__(self, dimensions: int, count: int) -> None:
        self._count = count
        self._next = [0] * dimensions
        self._first = [0] * dimensions
        self._last = [count // 2] * dimensions

    def any(self, dim: int) -> tuple[int, bool]:
        """Return the next queue of `dim` and its direction: clockwise but for the second half."""
        index = self._next[dim]
        self._next[dim] = (index + 1) % self._count
        return dim * self._count + index, self._count == 1 or index < self._count // 2

    def first(self, dim: int) -> tuple[int, bool]:
        """Return the next queue of the first half (clockwise)."""
        index = self._first[dim]
        self._first[dim] = index + 1 if index + 1 < self._count // 2 else 0
        return dim * self._count + index, True

    def last(self, dim: int) -> tuple[int, bool]:
        """Return the next queue of the second half (anticlockwise)."""
        index = self._last[dim]
        self._last[dim] = index + 1 if index + 1 < self._count else self._count // 2
        return dim * self._count + index, False


@dataclass(slots=True)
class RankPlanner:
    """What one rank remembers between collectives: queue allocators, tree parities, groups' first plans, streams."""

    rank: int
    queues: QueueAllocator
    parities: dict[tuple[CollectiveType, int], int]
    plans: dict[tuple[int, CollectiveType], tuple[Algorithm, ...]]
    streams: dict[int, int]


class CollectivePlanner:
    """Plans the collectives of every rank of one system."""

    def __init__(
        self,
        network: NetworkConfig,
        system: SystemConfig,
        groups: dict[int, tuple[int, ...]],
        queues_per_dim: int,
        per_node_custom: Mapping[int, str],
        rings: RingCache,
    ) -> None:
        self._counts = network.npus_count
        self._npus = network.npus
        self._system = system
        self._groups = groups
        self._queues_per_dim = queues_per_dim
        self._per_node_custom = per_node_custom
        self._native = {
            kind: tuple(Algorithm.parse(entry) for entry in system.implementations.get(key, ()))
            for kind, key in COLLECTIVE_KEYS.items()
        }
        self._rings = rings

    def rank_planner(self, rank: int) -> RankPlanner:
        """Return a fresh memory for `rank`."""
        return RankPlanner(rank, QueueAllocator(len(self._counts), self._queues_per_dim), {}, {}, {})

    def plan(
        self, memory: RankPlanner, collective: CollectiveType, size: int, involved: int, group: int, node_id: int
    ) -> list[tuple[int, list[Phase]]]:
        """Return the streams of one collective on one rank: (stream number, phases) a chunk, in order.

        Raises `SimulationError` where ASTRA-sim aborts, crashes or hangs; the caller adds rank and node.
        """
        algorithms, dimensions = self._logical(memory, collective, group, node_id)
        chunk, count = self._chunks(size, collective)
        if algorithms[0].kind is Kind.CUSTOM:
            if count > 1:
                raise SimulationError(
                    "a custom collective is one stream, but ASTRA-sim waits for preferred-dataset-splits of them and "
                    "never ends; set preferred-dataset-splits to 1"
                )
            ranks = self._groups[group] if group else tuple(range(self._npus))
            ring = self._rings.get(ranks, False)
            # A member's number in the custom graph is its place in the sorted list, peers are numbered in list order.
            phase = Phase(algorithms[0], collective, ring, sorted(ranks).index(memory.rank), size, 0, True)
            return [(self._stream(memory, group), [phase])]
        mask = -1 if group else involved
        if mask == ABSENT:
            mask = (1 << DEFAULT_DIMENSIONS) - 1
        eligible = [dim for dim, ring in enumerate(dimensions) if len(ring.ranks) > 1 and mask >> dim & 1]
        if not eligible:
            raise SimulationError("no dimension of more than one NPU takes part; correct involved_dim or the group")
        streams = []
        for _ in range(count):
            phases = list(self._phases(memory, collective, chunk, eligible, dimensions, algorithms))
            streams.append((self._stream(memory, group), phases))
        return streams

    def _stream(self, memory: RankPlanner, group: int) -> int:
        """Return the number of a rank's next stream, which must be the same on all ranks that meet in it.

        The count of all ranks' collectives goes on with a group's streams too: collectives over all ranks meet only
        if every rank has been in as many streams of groups before.
        """
        number = memory.streams.get(group, group * GROUP_STREAMS)
        memory.streams[0] = memory.streams.get(0, 0) + 1
        if group:
            memory.streams[group] = number + 1
        return number

    def _chunks(self, size: int, collective: CollectiveType) -> tuple[int, int]:
        """Return the bytes of a chunk and the number of chunks. Tiny collectives are inflated to a byte a rank."""
        splits = self._system.preferred_dataset_splits
        if splits < 1:
            raise SimulationError(
                "preferred-dataset-splits of the system configuration is missing or 0; write 1 or more"
            )
        chunk = size // splits
        if collective is not AG and self._npus > chunk:
            chunk, size = self._npus, splits * self._npus
        if chunk < 1 or size < 1:
            raise SimulationError(
                f"an all-gather of {size} bytes is less than preferred-dataset-splits ({splits}); make it at least that"
            )
        return chunk, -(-size // chunk)

    def _logical(
        self, memory: RankPlanner, collective: CollectiveType, group: int, node_id: int
    ) -> tuple[tuple[Algorithm, ...], tuple[Ring, ...]]:
        """Return a rank's algorithms and rings, one a logical dimension."""
        if group == 0 or len(self._groups[group]) == self._npus:
            algorithms = memory.plans.get((group, collective)) if group else None
            algorithms = algorithms or self._implementation(collective, node_id)
            if group:
                memory.plans[group, collective] = algorithms
            return algorithms, self._dimensions(memory.rank, self._native[collective])
        algorithms = memory.plans.get((group, collective))
        if algorithms is None:
            algorithms = self._implementation(collective, node_id)
            if len(algorithms) > 1:
                algorithms = (Algorithm(Kind.RING),)
            memory.plans[group, collective] = algorithms
        if algorithms[0].kind is Kind.TREE:
            raise SimulationError("doubleBinaryTree cannot run in a group smaller than the system; use ring or direct")
        return algorithms, (self._rings.get(self._groups[group], True),)

    def _implementation(self, collective: CollectiveType, node_id: int) -> tuple[Algorithm, ...]:
        key = COLLECTIVE_KEYS[collective]
        custom = self._per_node_custom.get(node_id, self._system.custom.get(key))
        if custom is not None:
            return (Algorithm(Kind.CUSTOM, custom=custom),)
        native = self._native[collective]
        if not native:
            raise SimulationError(f"the system configuration has no {key}-implementation; write one entry a dimension")
        if len(native) > len(self._counts):
            raise SimulationError(
                f"{key}-implementation has {len(native)} entries for {len(self._counts)} dimensions; write one each"
            )
        return native

    def _dimensions(self, rank: int, algorithms: tuple[Algorithm, ...]) -> tuple[Ring, ...]:
        rings = []
        stride = 1
        for count, algorithm in zip(self._counts, algorithms, strict=False):
            if algorithm.whole:
                rings.append(self._rings.get(range(self._npus), False))
                break
            base = rank - rank // stride % count * stride
            if algorithm.kind is Kind.TREE and len(rings) == len(algorithms) - 1:
                base = rank % stride  # the last tree starts in the first copy, even below further dimensions
            rings.append(self._rings.get(range(base, base + count * stride, stride), False))
            stride *= count
        return tuple(rings)

    def _phases(
        self,
        memory: RankPlanner,
        collective: CollectiveType,
        size: int,
        eligible: list[int],
        dimensions: tuple[Ring, ...],
        algorithms: tuple[Algorithm, ...],
    ) -> Iterator[Phase]:
        """Yield a chunk's phases: one a dimension, or reduce-scatter up, all-reduce on the last, all-gather down."""
        queues = memory.queues
        steps: list[tuple[int, CollectiveType, tuple[int, bool]]]
        optimisation = self._system.collective_optimization
        if optimisation is None and collective is AR and len(eligible) > 1:
            raise SimulationError(
                "collective-optimization of the system configuration is missing, which leaves an all-reduce over "
                "several dimensions undefined in ASTRA-sim; write baseline or localBWAware"
            )
        if collective is not AR or optimisation != "localBWAware":
            order = eligible[::-1] if collective is AG else eligible
            steps = [(dim, collective, queues.any(dim)) for dim in order]
        else:
            steps = [(dim, RS, queues.first(dim)) for dim in eligible[:-1]]
            steps.append((eligible[-1], AR, queues.first(eligible[-1])))
            steps += [(dim, AG, queues.last(dim)) for dim in eligible[-2::-1]]
        for dim, kind, (queue, clockwise) in steps:
            phase = self._phase(memory, collective, dim, kind, dimensions[dim], algorithms[dim], size, queue, clockwise)
            yield phase
            size = phase.final_size

    def _phase(
        self,
        memory: RankPlanner,
        collective: CollectiveType,
        dim: int,
        kind: CollectiveType,
        ring: Ring,
        algorithm: Algorithm,
        size: int,
        queue: int,
        clockwise: bool,
    ) -> Phase:
        parity = 0
        if algorithm.kind is Kind.TREE:
            parity = memory.parities.get((collective, dim), 0)
            memory.parities[collective, dim] = 1 - parity
        _check(algorithm, kind, ring, memory.rank)
        return Phase(algorithm, kind, ring, ring.ranks.index(memory.rank), size, queue, clockwise, parity)


def _check(algorithm: Algorithm, kind: CollectiveType, ring: Ring, rank: int) -> None:
    """Refuse what ASTRA-sim crashes on or never finishes."""
    count = len(ring.ranks)
    if algorithm.kind is Kind.TREE and count & (count - 1):
        raise SimulationError(f"doubleBinaryTree over {count} NPUs: it needs a power of two; use ring or direct")
    if algorithm.kind is Kind.HALVING_DOUBLING and kind is A2A:
        raise SimulationError("halvingDoubling cannot run an all-to-all; use ring or direct")
    if rank not in ring.ranks:
        raise SimulationError(
            f"{algorithm.kind.value} in the last entry of a list shorter than the network leaves this rank out; "
            "write one entry a dimension"
        )


def _leading_digits(text: str) -> Iterator[str]:
    for character in text:
        if character not in digits:
            return
        yield character
