"""Events and messages one by one: what runs when, which tags meet, and that like ranks' messages take equally long."""

from __future__ import annotations

import analytical_cases as cases
import pytest
from changes import Change, both, change, dimensions
from hypothesis import given, settings
from hypothesis import strategies as st

from analytical.chains.message_delays import MessageDelays
from analytical.chains.stretches import SHORT_NS
from analytical.collectives.models import Models
from analytical.machine.event_queue import EventQueue, LocalEvents
from analytical.machine.messages import (
    RENDEZVOUS_BYTES,
    Messenger,
    RendezvousMessenger,
    collective_tag,
    point_to_point_tag,
)
from analytical.machine.network import AwareTransport, DelayModel, UnawareTransport
from foundation.errors import SimulationError

LAST_STREAM = 499_999_999
"""The next one has the tag of the first."""


def models(*changes: Change) -> Models:
    case = cases.healthy()
    both(*changes)(case)
    return cases.backend(case).events.models


class Exchange:
    """A messenger of either protocol; `heard` names the messages that were sent or received, as they were."""

    def __init__(self, protocol: type[Messenger]) -> None:
        self.queue = EventQueue()
        self.messenger = protocol(UnawareTransport(models().delays, self.queue), self.queue, 4)
        self.heard: list[str] = []

    def send(self, name: str, tag: int, src: int, dst: int, size: int = 8192) -> None:
        self.messenger.send(tag, src, dst, size, (self.heard.append, f"{name} sent"))

    def receive(self, name: str, tag: int, src: int, dst: int, size: int = 8192) -> None:
        self.messenger.receive(tag, src, dst, size, (self.heard.append, f"{name} received"))


@pytest.mark.parametrize("protocol", [Messenger, RendezvousMessenger])
@pytest.mark.parametrize("stream", [0, 1, LAST_STREAM])
@pytest.mark.parametrize("tag", [0, 1, 499_999_999])
def test_no_node_gets_what_a_collective_sends(protocol: type[Messenger], stream: int, tag: int) -> None:
    """Nor its receiver's word that it is ready, which has 8192 bytes."""
    exchange = Exchange(protocol)
    exchange.send("node", point_to_point_tag(tag), 0, 1)
    exchange.receive("other node", point_to_point_tag(tag), 1, 0, RENDEZVOUS_BYTES + 1)
    exchange.send("collective", collective_tag(stream), 1, 0)
    exchange.receive("collective", collective_tag(stream), 1, 0)
    exchange.queue.run()
    alone = ["node sent"] if protocol is Messenger else []
    assert exchange.heard == [*alone, "collective sent", "collective received"]


@pytest.mark.parametrize(
    ("tag", "kept"), [(0, 0), (499_999_999, 499_999_999), (500_000_000, 0), (2**31 - 1, 147_483_647)]
)
def test_tags_wrap_where_they_do_upstream(tag: int, kept: int) -> None:
    assert (point_to_point_tag(tag), collective_tag(tag)) == (kept, kept + 500_000_000)


@settings(deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    topology=st.sampled_from(["Ring", "FullyConnected", "Switch"]),
    delta=st.integers(-60, 60).filter(bool),
)
def test_messages_over_one_distance_take_equally_long(counts: list[int], topology: str, delta: int) -> None:
    """From every rank of a network whose dimensions all differ: `MessageDelays` asks for one of them only."""
    columns = {
        "bandwidth": [1 + at for at in range(len(counts))],
        "latency": [500 * 7**at for at in range(len(counts))],
    }
    model = models(
        dimensions(*counts), lambda case: case["network"].update(topology=[topology] * len(counts), **columns)
    ).delays
    delays = [model.delay(rank, rank + delta, 420) for rank in range(model.npus) if 0 <= rank + delta < model.npus]
    assert len(set(delays)) <= 1
    kept = MessageDelays(model)
    for rank, delay in zip((rank for rank in range(model.npus) if 0 <= rank + delta < model.npus), delays, strict=True):
        assert kept.get(rank, delta, 420) == delay


def test_a_delay_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    delay = DelayModel.delay
    monkeypatch.setattr(DelayModel, "delay", lambda self, *of: asked.append(of) or delay(self, *of))
    kept = MessageDelays(models().delays)
    assert [kept.get(0, 1, 500), kept.get(2, 1, 500)] == [1009, 1009]
    assert [kept.get(0, 1, 5000), kept.get(0, 2, 500)] == [1093, 1009]
    assert asked == [(0, 1, 500), (0, 1, 5000), (0, 2, 500)]


def test_no_sum_of_delays_leaves_64_bits() -> None:
    byte_a_ns = models(change("network/bandwidth", [1e9 / 2**30]), change("network/latency", [0])).delays
    kept = MessageDelays(byte_a_ns)
    assert kept.get(0, 1, SHORT_NS) == SHORT_NS
    with pytest.raises(SimulationError, match="longer than the fast ways count"):
        kept.get(0, 1, SHORT_NS + 1)


def test_what_a_rank_schedules_for_a_moment_that_its_events_have_had_still_runs() -> None:
    """In the order in which it was scheduled; what is scheduled while they run runs with them."""
    queue, ran = EventQueue(), list[str]()
    own = LocalEvents(queue)
    own.after(5, lambda _: own.after(0, ran.append, "while they run") or ran.append("first"), None)
    queue.schedule(5, ran.append, "another's")
    queue.schedule(5, lambda _: own.after(0, ran.append, "again"), None)
    queue.run()
    assert ran == ["first", "while they run", "another's", "again"]
    assert queue.now == 5 and queue.next_time is None


def test_bytes_over_links_that_serve_one_message_at_a_time_are_counted() -> None:
    """Each message once, however many links it takes."""
    queue = EventQueue()
    transport = AwareTransport(models(change("network/topology", ["Ring"])).machine.network, queue)
    arrived: list[int] = []
    for size in (100, 4000):
        transport.transmit(0, 2, size, arrived.append, size)
    queue.run()
    assert arrived == [100, 4000]
    assert transport.volume == [4100]
