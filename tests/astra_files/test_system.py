"""system.json: read as ASTRA-sim reads it, written canonically, refused with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astra_files.system import SystemConfig
from foundation.errors import UserError

EVERYTHING: dict[str, Any] = {
    "scheduling-policy": "FIFO",
    "collective-optimization": "localBWAware",
    "local-reduction-delay": 2,
    "active-chunks-per-dimension": 3,
    "L": 4.5,
    "o": 5.5,
    "g": 6.5,
    "G": 7.5,
    "endpoint-delay": 12,
    "preferred-dataset-splits": 8,
    "peak-perf": 900.5,
    "local-mem-bw": 1600.5,
    "model-shared-bus": 1,
    "roofline-enabled": 1,
    "trace-enabled": 1,
    "replay-only": 1,
    "all-reduce-implementation": ["ring", "direct3"],
    "all-gather-implementation": ["oneRing"],
    "reduce-scatter-implementation": ["halvingDoubling", "oneDirect2"],
    "all-to-all-implementation": ["direct", "oneDirect"],
    "all-reduce-implementation-custom": ["graphs/ar"],
    "all-gather-implementation-custom": ["graphs/ag"],
    "per-node-custom-implementation": "nodes.yml",
    "boost-mode": 0,
    "track-local-mem": 0,
}
"""Every key, none at its default."""


def system(**changes: Any) -> str:
    """The text of a system configuration of the required key and `changes` (hyphens as underscores)."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return json.dumps({"scheduling-policy": "LIFO"} | named, indent=1)


def said(text: str) -> str:
    """The error that `text` is refused with."""
    with pytest.raises(UserError) as caught:
        SystemConfig.from_text(text, "file")
    return str(caught.value)


def test_every_key_is_read() -> None:
    assert SystemConfig.from_text(json.dumps(EVERYTHING)) == SystemConfig(
        scheduling_policy="FIFO",
        collective_optimization="localBWAware",
        local_reduction_delay=2,
        active_chunks_per_dimension=3,
        L=4.5,
        o=5.5,
        g=6.5,
        G=7.5,
        endpoint_delay=12,
        model_shared_bus=True,
        preferred_dataset_splits=8,
        peak_perf=900.5,
        local_mem_bw=1600.5,
        roofline_enabled=True,
        trace_enabled=True,
        replay_only=True,
        implementations={
            "all-reduce": ("ring", "direct3"),
            "all-gather": ("oneRing",),
            "reduce-scatter": ("halvingDoubling", "oneDirect2"),
            "all-to-all": ("direct", "oneDirect"),
        },
        custom={"all-reduce": "graphs/ar", "all-gather": "graphs/ag"},
        per_node_custom="nodes.yml",
        other={"boost-mode": 0, "track-local-mem": 0},
    )


def test_every_key_is_written() -> None:
    """In the order of `EVERYTHING`, which is the canonical one."""
    assert SystemConfig.from_text(json.dumps(EVERYTHING)).to_text() == json.dumps(EVERYTHING, indent=1) + "\n"


def test_absent_keys() -> None:
    read = SystemConfig.from_text(system(scheduling_policy="EXPLICIT"))
    assert read == SystemConfig(
        scheduling_policy="EXPLICIT",
        collective_optimization=None,
        local_reduction_delay=1,
        active_chunks_per_dimension=1,
        L=0.0,
        o=0.0,
        g=0.0,
        G=0.0,
        endpoint_delay=None,
        model_shared_bus=False,
        preferred_dataset_splits=0,
        peak_perf=0.0,
        local_mem_bw=0.0,
        roofline_enabled=False,
        trace_enabled=False,
        replay_only=False,
        implementations={},
        custom={},
        per_node_custom=None,
        other={},
    )
    written = json.loads(read.to_text())
    assert {"endpoint-delay", "collective-optimization", "per-node-custom-implementation"}.isdisjoint(written)
    assert SystemConfig.from_text(read.to_text()) == read


def test_one_made_in_python_reads_back() -> None:
    assert SystemConfig.from_text(SystemConfig().to_text()) == SystemConfig()
    assert SystemConfig().collective_optimization == "baseline"


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "system.json"
    with pytest.raises(UserError, match=rf"^{path}: the system configuration does not exist; check the path$"):
        SystemConfig.from_file(path)
    path.write_text(system(peak_perf=3))
    assert SystemConfig.from_file(path).peak_perf == 3
    path.write_text(system(peak_perf=-3))
    with pytest.raises(UserError, match=rf"^{path}, line 3, peak-perf: -3 is not"):
        SystemConfig.from_file(path)


def test_numbers_are_converted_as_upstream_converts_them() -> None:
    """Floats are cut to integers towards zero, booleans are 0 or 1; only the number 1 is a shared bus."""
    assert SystemConfig.from_text(system(endpoint_delay=12.9)).endpoint_delay == 12
    assert SystemConfig.from_text(system(endpoint_delay=-0.9)).endpoint_delay == 0
    assert SystemConfig.from_text(system(active_chunks_per_dimension=True)).active_chunks_per_dimension == 1
    assert SystemConfig.from_text(system(model_shared_bus=True)).model_shared_bus
    assert not SystemConfig.from_text(system(model_shared_bus=2)).model_shared_bus
    for on in (1, 2, -1, 0.5, True):
        assert SystemConfig.from_text(system(roofline_enabled=on)).roofline_enabled
    assert not SystemConfig.from_text(system(roofline_enabled=0.0)).roofline_enabled


LIMITS = {
    "local-reduction-delay": (0, 10**9),
    "active-chunks-per-dimension": (1, 2**31 - 1),
    "endpoint-delay": (0, 10**9),
    "preferred-dataset-splits": (0, 2**16),
    "model-shared-bus": (-1, 2**31 - 1),
}
NUMBERS = {"L": 10**9, "o": 10**9, "g": 10**9, "G": 10**9, "peak-perf": 10**15, "local-mem-bw": 10**15}


@pytest.mark.parametrize(("key", "limits"), LIMITS.items())
def test_whole_numbers_have_limits(key: str, limits: tuple[int, int]) -> None:
    low, high = limits
    for taken in limits:
        assert SystemConfig.from_text(system(**{key: taken}))
    for value in (low - 1, high + 1):
        assert said(system(**{key: value})) == (
            f"file, line 3, {key}: {value} is not a whole number from {low} to {high}"
        )
    assert said(system(**{key: None})) == f"file, line 3, {key}: null is not a whole number from {low} to {high}"
    assert said(system(**{key: "1"})) == f'file, line 3, {key}: "1" is not a whole number from {low} to {high}'


@pytest.mark.parametrize(("key", "high"), NUMBERS.items())
def test_numbers_have_limits(key: str, high: int) -> None:
    for taken in (0, 1e-15, high):
        assert SystemConfig.from_text(system(**{key: taken}))
    for value in (-1, 2 * high, 1e-320, "1", None):
        assert said(system(**{key: value})).startswith(f"file, line 3, {key}: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "file: scheduling-policy is missing; give one of LIFO, FIFO, EXPLICIT"),
        (
            system(scheduling_policy="lifo"),
            'file, line 2, scheduling-policy: "lifo" is unknown; did you mean LIFO, FIFO?',
        ),
        (
            system(collective_optimization="base"),
            'file, line 3, collective-optimization: "base" is unknown; did you mean baseline?',
        ),
        (
            system(roofline_enabled=False),
            "file, line 3, roofline-enabled: false is read as on by ASTRA-sim; write 0 for off or 1 for on",
        ),
        (
            system(replay_only="1"),
            'file, line 3, replay-only: "1" is read as on by ASTRA-sim; write 0 for off or 1 for on',
        ),
        (
            system(trace_enabled=None),
            "file, line 3, trace-enabled: null is read as on by ASTRA-sim; write 0 for off or 1 for on",
        ),
        (
            system(track_local_mem=1),
            "file, line 3, track-local-mem: ASTRA-sim never ends with it, for Chakra graphs lack what it asks for; "
            "write 0",
        ),
        (
            system(all_reduce_implementation="ring"),
            'file, line 3, all-reduce-implementation: "ring" is not a list of strings, one a dimension, such as '
            '["ring"]',
        ),
        (
            system(all_gather_implementation=["ring", 3]),
            "file, line 5, all-gather-implementation[1]: 3 is not a string",
        ),
        (
            system(all_to_all_implementation=["direct0"]),
            'file, line 3, all-to-all-implementation: "direct0" is unknown; write ring, direct, directN (N peers at '
            "once), halvingDoubling, doubleBinaryTree, oneRing, oneDirect, oneDirectN or oneHalvingDoubling",
        ),
        (
            system(all_reduce_implementation_custom=[]),
            "file, line 3, all-reduce-implementation-custom: 0 entries; write one prefix of Chakra files; it covers "
            "all dimensions",
        ),
        (
            system(all_to_all_implementation_custom="graphs/a"),
            'file, line 3, all-to-all-implementation-custom: "graphs/a" is not a list of strings, one a dimension, '
            'such as ["ring"]',
        ),
        (system(per_node_custom_implementation=3), "file, line 3, per-node-custom-implementation: 3 is not a string"),
        (
            system(L=-1, G="x"),
            "file: line 3, L: -1 is not a number of at least 0 and at most 1e+09; "
            'line 4, G: "x" is not a number of at least 0 and at most 1e+09',
        ),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    assert said(text) == expected


@pytest.mark.parametrize("name", ["Direct", "onedirect", "rings", "ring ", "One", "directx", "direct-1", "oneTree"])
def test_algorithms_that_there_are_not(name: str) -> None:
    assert f'"{name}" is unknown' in said(system(all_reduce_implementation=[name]))


@pytest.mark.parametrize("text", ["[]", "{", "", "null", "1e400", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_what_is_no_system_at_all(text: str) -> None:
    assert said(text).startswith("file")
