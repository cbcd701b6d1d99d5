"""The configuration files: read as ASTRA-sim reads them, written canonically, refused with line and field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig
from foundation.errors import UserError

NETWORK = "topology: [ Ring, Switch ]\nnpus_count: [ 4, 2 ]\nbandwidth: [ 50.0, 25 ]\nlatency: [ 500, 1000.5 ]\n"


def test_network() -> None:
    network = NetworkConfig.from_text(NETWORK)
    assert network == NetworkConfig(("Ring", "Switch"), (4, 2), (50.0, 25.0), (500.0, 1000.5))
    assert network.npus == 8
    assert network.bytes_per_ns == (50 * 2**30 / 1e9, 25 * 2**30 / 1e9)
    assert network.to_text() == (
        "topology: [ Ring, Switch ]\n"
        "npus_count: [ 4, 2 ]\n"
        "bandwidth: [ 50.0, 25.0 ]  # GB/s\n"
        "latency: [ 500.0, 1000.5 ]  # ns\n"
    )


def test_network_numbers_are_read_as_they_are_written() -> None:
    """As upstream does: in quotes, or with a leading zero, which YAML 1.1 takes for octal."""
    text = 'topology: ["Ring"]\nnpus_count: ["4"]\nbandwidth: [050]\nlatency: ["5e2"]\n'
    assert NetworkConfig.from_text(text) == NetworkConfig(("Ring",), (4,), (50.0,), (500.0,))
    with pytest.raises(UserError, match=r"line 3, bandwidth: .*does not hold numbers"):
        NetworkConfig.from_text(text.replace("050", "5_0"))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Ring", "FullyConnected", "Switch"]),
            st.integers(2, 64),
            st.floats(1e-3, 1e6),
            st.floats(0, 1e6),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_network_text_round_trip(rows: list[tuple[str, int, float, float]]) -> None:
    network = NetworkConfig(*(tuple(column) for column in zip(*rows, strict=True)))
    assert NetworkConfig.from_text(network.to_text()) == network


def test_system_defaults_are_upstreams() -> None:
    system = SystemConfig.from_text("{}")
    assert system == SystemConfig()
    assert system.endpoint_delay is None
    assert "endpoint-delay" not in json.loads(system.to_text())


def test_system_round_trip_keeps_what_nothing_reads() -> None:
    text = json.dumps(
        {
            "scheduling-policy": "FIFO",
            "endpoint-delay": 12.9,
            "roofline-enabled": 1,
            "peak-perf": 900,
            "all-reduce-implementation": ["ring", "direct3"],
            "all-gather-implementation-custom": ["graphs/ag"],
            "boost-mode": 0,
        }
    )
    system = SystemConfig.from_text(text)
    assert system.endpoint_delay == 12
    assert system.implementations == {"all-reduce": ("ring", "direct3")}
    assert system.custom == {"all-gather": "graphs/ag"}
    assert system.other == {"boost-mode": 0}
    assert SystemConfig.from_text(system.to_text()) == system
    assert SystemConfig.from_text(system.to_text()).to_text() == system.to_text()


def test_memory_numbers_are_truncated() -> None:
    text = '{"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-bw": 2.9, "remote-mem-latency": 100.7, "note": 1}'
    memory = RemoteMemoryConfig.from_text(text)
    assert (memory.remote_mem_bw, memory.remote_mem_latency, memory.other) == (2, 100, {"note": 1})
    assert RemoteMemoryConfig.from_text(memory.to_text()) == memory


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (
            NetworkConfig,
            "topology: [ring]\nnpus_count: [4]\nbandwidth: [1]\nlatency: [1]",
            "file, line 1, topology: 'r",
        ),
        (NetworkConfig, NETWORK.replace("4, 2", "4"), r"file, line 2, npus_count: 1 entries for 2 dimensions"),
        (NetworkConfig, NETWORK.replace("4, 2", "4, 1"), r"npus_count: \[4, 1\] has a dimension of fewer than 2"),
        (NetworkConfig, NETWORK.replace("4, 2", "4, 2.0"), r"npus_count: \[4, 2.0\] does not hold integers"),
        (NetworkConfig, NETWORK.replace("25", "0"), r"file, line 3, bandwidth: .* is not above 0; write GB/s"),
        (NetworkConfig, NETWORK.replace("500,", "-1,"), r"file, line 4, latency: .* is negative"),
        (NetworkConfig, "topology: Ring", r"topology: 'Ring' is not a list.*bandwidth: missing.*latency: missing"),
        (NetworkConfig, "a: [", r"file, line \d: not valid YAML"),
        (NetworkConfig, "- 1", r"file: the top level is not a mapping"),
        (
            SystemConfig,
            '{\n "scheduling-policy": "lifo"\n}',
            r"file, line 2, scheduling-policy: 'lifo' is unknown; .*LIFO",
        ),
        (SystemConfig, '{"roofline-enabled": false}', r"roofline-enabled: false is read as on by ASTRA-sim; write 0"),
        (SystemConfig, '{"peak-perf": "900"}', r"peak-perf: '900' is not a number"),
        (SystemConfig, '{"endpoint-delay": -1}', r"endpoint-delay: -1 is below 0"),
        (SystemConfig, '{"active-chunks-per-dimension": 0}', r"active-chunks-per-dimension: 0 is below 1"),
        (SystemConfig, '{"all-reduce-implementation": "ring"}', r"all-reduce-implementation: 'ring' is not a list"),
        (
            SystemConfig,
            '{"all-to-all-implementation": ["direct0"]}',
            r"'direct0' is unknown; write ring, direct, directN",
        ),
        (SystemConfig, '{"all-reduce-implementation-custom": []}', r"0 entries; write one prefix"),
        (SystemConfig, '{"L": -1, "G": "x"}', r"L: -1 is below 0.*G: 'x' is not a number"),
        (SystemConfig, "[]", r"file, line 1: the top level is not a JSON object"),
        (RemoteMemoryConfig, "{}", r"memory-type: missing; write one of NO_MEMORY_EXPANSION"),
        (
            RemoteMemoryConfig,
            '{"memory-type": "PER_NODE_MEMORY_EXPANSION"}',
            r"num-npus-per-node: nodes or NPUs a node",
        ),
    ],
)
def test_mistakes(kind: Any, text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        kind.from_text(text, "file")
