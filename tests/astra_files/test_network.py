"""network.yml: read as ASTRA-sim reads it, written canonically, refused with line and field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astra_files.network import NetworkConfig
from foundation.errors import UserError

TEXT = "topology: [ Ring, Switch ]\nnpus_count: [ 4, 2 ]\nbandwidth: [ 50.0, 25 ]\nlatency: [ 500, 1000.5 ]\n"


def one(**rows: str) -> str:
    """The text of a network of one dimension, some of whose entries are changed."""
    entries = {"topology": "Ring", "npus_count": "4", "bandwidth": "50", "latency": "500"} | rows
    return "".join(f"{name}: [{entry}]\n" for name, entry in entries.items())


def said(text: str) -> str:
    """The error that `text` is refused with."""
    with pytest.raises(UserError) as caught:
        NetworkConfig.from_text(text, "file")
    return str(caught.value)


def test_what_is_read() -> None:
    network = NetworkConfig.from_text(TEXT)
    assert network == NetworkConfig(("Ring", "Switch"), (4, 2), (50.0, 25.0), (500.0, 1000.5))
    assert network.npus == 8
    assert network.bytes_per_ns == (50 * 2**30 / 1e9, 25 * 2**30 / 1e9)


def test_what_is_written() -> None:
    assert NetworkConfig.from_text(TEXT).to_text() == (
        "topology: [ Ring, Switch ]\n"
        "npus_count: [ 4, 2 ]\n"
        "bandwidth: [ 50.0, 25.0 ]  # GB/s\n"
        "latency: [ 500.0, 1000.5 ]  # ns\n"
    )


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "network.yml"
    with pytest.raises(UserError, match=rf"^{path}: the network configuration does not exist; check the path$"):
        NetworkConfig.from_file(path)
    path.write_text(TEXT)
    assert NetworkConfig.from_file(path) == NetworkConfig.from_text(TEXT)
    path.write_text(one(topology="Rang"))
    with pytest.raises(UserError, match=rf"^{path}, line 1, topology: 'Rang' is unknown"):
        NetworkConfig.from_file(path)


def test_numbers_are_read_as_they_are_written() -> None:
    """As upstream does: in quotes, or with a leading zero, which YAML 1.1 takes for octal."""
    text = 'topology: ["Ring"]\nnpus_count: ["4"]\nbandwidth: [050]\nlatency: ["5e2"]\n'
    assert NetworkConfig.from_text(text) == NetworkConfig(("Ring",), (4,), (50.0,), (500.0,))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Ring", "FullyConnected", "Switch"]),
            st.integers(2, 32),
            st.floats(1e-9, 1e9),
            st.floats(0, 1e12).filter(lambda value: value == 0 or value > 1e-300),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_reads_back(rows: list[tuple[str, int, float, float]]) -> None:
    network = NetworkConfig(*(tuple(column) for column in zip(*rows, strict=True)))
    assert NetworkConfig.from_text(network.to_text()) == network


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("npus_count", "1"),
        ("npus_count", "1048576"),
        ("bandwidth", "1e-9"),
        ("bandwidth", "1e9"),
        ("latency", "0"),
        ("latency", "1e12"),
        ("topology", "FullyConnected"),
    ],
)
def test_the_last_value_that_is_taken(name: str, last: str) -> None:
    assert NetworkConfig.from_text(one(**{name: last})).to_text()


NAMES, WHOLE, NUMBERS = (f"a list of {what}, one a dimension" for what in ("names", "whole numbers", "numbers"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (one(topology="ring"), "line 1, topology: 'ring' is unknown; write one of Ring, FullyConnected, Switch"),
        (
            TEXT.replace("4, 2", "4"),
            "line 2, npus_count: 1 entries for 2 dimensions of topology; write one entry a dimension",
        ),
        (
            TEXT.replace("50.0, 25", "50, 50, 50"),
            "line 3, bandwidth: 3 entries for 2 dimensions of topology; write one entry a dimension",
        ),
        (
            TEXT.replace("500, 1000.5", "9"),
            "line 4, latency: 1 entries for 2 dimensions of topology; write one entry a dimension",
        ),
        (
            TEXT.replace("4, 2", "4, 1"),
            "line 2, npus_count: [4, 1] has a dimension of fewer than 2 NPUs; drop that dimension",
        ),
        (
            one(npus_count="0"),
            "line 2, npus_count: [0] has a dimension of fewer than 2 NPUs; drop that dimension",
        ),
        (one(npus_count="1048577"), "line 2, npus_count: [1048577] makes 1048577 NPUs; simulate 1048576 at most"),
        (one(npus_count="2.0"), f'line 2, npus_count: ["2.0"] is not {WHOLE}'),
        (one(npus_count="-"), f'line 2, npus_count: ["-"] is not {WHOLE}'),
        (one(npus_count="1_0"), f'line 2, npus_count: ["1_0"] is not {WHOLE}'),
        (one(npus_count=""), f"line 2, npus_count: [] is not {WHOLE}"),
        (one(npus_count="[4]"), f'line 2, npus_count: [["4"]] is not {WHOLE}'),
        (one(bandwidth="5_0"), f'line 3, bandwidth: ["5_0"] is not {NUMBERS}'),
        (one(bandwidth=".inf"), f'line 3, bandwidth: [".inf"] is not {NUMBERS}'),
        (one(bandwidth="nan"), f'line 3, bandwidth: ["nan"] is not {NUMBERS}'),
        (one(bandwidth="1e400"), f'line 3, bandwidth: ["1e400"] is not {NUMBERS}'),
        (
            one(bandwidth="1e-320"),
            "line 3, bandwidth: [1e-320] does not lie between 1e-09 and 1e+09 GB/s; write GB/s within them",
        ),
        (
            one(bandwidth="0"),
            "line 3, bandwidth: [0.0] does not lie between 1e-09 and 1e+09 GB/s; write GB/s within them",
        ),
        (
            one(bandwidth="1.1e9"),
            "line 3, bandwidth: [1100000000.0] does not lie between 1e-09 and 1e+09 GB/s; write GB/s within them",
        ),
        (one(latency="-1"), "line 4, latency: [-1.0] does not lie between 0 and 1e+12 ns; write ns within them"),
        (
            one(latency="2e12"),
            "line 4, latency: [2000000000000.0] does not lie between 0 and 1e+12 ns; write ns within them",
        ),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    assert said(text) == f"file, {expected}"


def test_all_mistakes_are_told_at_once() -> None:
    assert said("topology: Ring\nlatency: [x]") == (
        f'file: line 1, topology: "Ring" is not {NAMES}; npus_count: missing; write {WHOLE}; '
        f'bandwidth: missing; write {NUMBERS}; line 2, latency: ["x"] is not {NUMBERS}'
    )


@pytest.mark.parametrize("text", ["- 1", "", "a: [", "topology: [Ring]\ntopology: [Ring]", "2024-01-01: 1"])
def test_what_is_no_network_at_all(text: str) -> None:
    assert said(text).startswith("file")
