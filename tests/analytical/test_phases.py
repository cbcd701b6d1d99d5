"""Phases solved in few steps: exchanges that are alike at once, and positions that are alike as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytical.collectives.algorithms import PacketToggle, reduced_packets
from analytical.collectives.phases import DirectPhase, Exchange, PhaseModel, PhaseModels
from analytical.collectives.plan import A2A, AG, AR, RS, Algorithm, Kind, Phase, Ring
from analytical.machine.network import DelayModel
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from converters.execution_graph import IntArray


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.data())
def test_exchanges_at_once_are_exchanges_one_by_one(data: Any) -> None:
    count, times = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 40))
    sources = np.array(data.draw(st.permutations(range(count))))
    ready, delays = (
        np.array(data.draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count))) for _ in range(2)
    )
    at_once = Exchange(sources, delays, 7 * times, times)
    latest, order = ready, np.arange(count)
    for _ in range(times):
        latest = np.maximum(latest[sources] + delays, latest) + 7
        order = order[sources]
    assert at_once.after(ready).tolist() == latest.tolist()
    assert at_once.carried(np.arange(count)).tolist() == order.tolist()


@pytest.mark.parametrize("collective", [AR, AG, RS, A2A])
@pytest.mark.parametrize("later", [0, 1, 2, 5])
def test_reduced_packets_are_counted_as_the_toggle_marks_them(collective: Any, later: int) -> None:
    phase = Phase(Algorithm(Kind.RING), collective, Ring((0, 1)), 0, 8, 0, True)
    toggle = PacketToggle(1, later, phase)
    marked = np.cumsum([toggle.next()[1] for _ in range(40)])
    assert [reduced_packets(phase, later, packets) for packets in range(1, 41)] == marked.tolist()


def model_of(network: NetworkConfig, collective: Any, kind: Kind, ring: Ring, clockwise: bool) -> PhaseModel:
    models = PhaseModels(DelayModel(network), SystemConfig(endpoint_delay=10, local_mem_bw=100), 1.0)
    model = models.model(Phase(Algorithm(kind), collective, ring, 0, 1 << 16, 0, clockwise))
    assert model is not None
    return model


def network_of(topology: str, *counts: int) -> NetworkConfig:
    return NetworkConfig((topology,) * len(counts), counts, (50.0,) * len(counts), (500.0,) * len(counts))


@pytest.mark.parametrize("collective", [AR, AG, RS, A2A])
@pytest.mark.parametrize("topology", ["Ring", "FullyConnected", "Switch"])
@pytest.mark.parametrize("clockwise", [True, False])
def test_a_dimension_in_step_is_solved_as_one_position(collective: Any, topology: str, clockwise: bool) -> None:
    """A ring that is a dimension of the network, beside one whose positions are looked at one by one."""
    ring = Ring(tuple(range(1, 18, 3)))
    alike = model_of(network_of(topology, 3, 6), collective, Kind.DIRECT, ring, clockwise)
    assert isinstance(alike, DirectPhase) and len(alike.delays) == 1
    one_by_one = DirectPhase(
        alike.bus,
        alike.last_reduction,
        alike.volume,
        delays=np.repeat(alike.delays, 6, axis=0),
        direction=alike.direction,
        reduction=alike.reduction,
        halves=alike.halves,
    )
    for entries in ([0] * 6, [0, 0, 5, 0, 700, 0]):
        assert alike.solve(entries) == one_by_one.solve(entries)
    delays = DelayModel(network_of(topology, 3, 6))
    step = alike.direction
    for position in range(6):
        behind = [ring.ranks[(position - step * back) % 6] for back in range(1, 6)]
        expected = [
            delays.delay(rank, ring.ranks[position], (1 << 16) // (1 if collective is AG else 6)) for rank in behind
        ]
        assert alike.delays[0].tolist() == expected


def test_many_ways_at_once_are_the_ways_one_by_one() -> None:
    delays = DelayModel(network_of("Ring", 3, 2, 4))
    pairs = [(src, dst) for src in range(24) for dst in range(24) if src != dst]
    src, dst = (np.array(ends) for ends in zip(*pairs, strict=True))
    dims, distances = delays.dimensions(src, dst)
    assert list(zip(dims.tolist(), distances.tolist(), strict=True)) == [delays.dimension(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("ranks", "is_one"),
    [
        ((0, 1, 2), True),
        ((3, 4, 5), True),
        ((1, 4), True),
        ((2, 8, 14, 20), True),
        ((0, 2, 1), False),
        ((1, 2, 3), False),
        ((0, 1), False),
        ((8, 14, 20, 2), False),
        (tuple(range(24)), False),
    ],
)
def test_a_dimension_is_known_by_its_ranks(ranks: tuple[int, ...], is_one: bool) -> None:
    assert DelayModel(network_of("Ring", 3, 2, 4)).is_dimension(ranks) is is_one


@pytest.mark.parametrize("kind", [Kind.RING, Kind.HALVING_DOUBLING])
def test_a_phase_over_very_many_ranks_is_solved(kind: Kind) -> None:
    count = 1 << 14
    model = model_of(network_of("Switch", count), AR, kind, Ring(tuple(range(count))), True)
    together: IntArray = np.array(model.solve([0] * count).arrivals)
    assert (together == together[0]).all()
    late = np.array(model.solve([0] * (count - 1) + [1000]).arrivals)
    assert (late >= together).all() and (late - together).max() == 1000
