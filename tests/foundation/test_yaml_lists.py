"""`foundation.yaml_lists` against the YAML library: what it reads, it reads the same; the rest it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foundation import yaml_lists, yaml_values

NETWORKS = sorted((Path(__file__).parents[2] / "configs" / "networks").glob("*.yml"))
words = st.sampled_from(
    ["Ring", "4", "50.0", "1e-5", "-3", "+2", ".5", "...", "null", "~", "- 1", "-", "a b", "", "1:2", "é"]
)
rows = st.builds(
    lambda name, gap, words, end: f"{name}:{gap}[{gap}{', '.join(words)}{gap}]{end}",
    st.sampled_from(["topology", "npus_count", "_a", "x", "a-b", " y", "---", "0"]),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.lists(words, max_size=3),
    st.sampled_from(["", " ", "  # GB/s", "# near", " #\x07", " tail", ",", "\r", "\x85"]),
)
others = st.sampled_from(
    ["", "  ", "# a comment", "\t", "a: 1", "a: [1", "]", "%YAML 1.1", "--- # x", "...", "&a [1]", "{", "\x00"]
)
texts = st.lists(rows | others, max_size=4).map("\n".join)


@given(texts | st.text("ab:[], #\n1.-+\t\r", max_size=12))
@example("a: [ 1 ]\na: [ 2 ]")
@example("x: [ 1, 2, ]")
@example("x: [ ]\n")
def test_what_it_reads_is_what_yaml_says(text: str) -> None:
    """Values, and where each of them stands."""
    found = yaml_lists.parse(text)
    if found is not None:
        assert found == yaml_values.parse(text, "file", None, plain=True)


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_shipped_networks_need_no_library(path: Path) -> None:
    text = path.read_text()
    assert yaml_lists.parse(text) == yaml_values.parse(text, "file", None, plain=True)


@pytest.mark.parametrize("text", ["a: [ 1 ]\na: [ 2 ]", "a: [ 1", "a: [ 1 ]\n?", "a: &b [ 1 ]", "- [ 1 ]", ""])
def test_what_is_wrong_or_richer_is_left_to_the_library(text: str) -> None:
    assert yaml_lists.parse(text) is None


def test_long_texts_are_left_to_the_library() -> None:
    assert yaml_lists.parse("a: [ 1 ]\n" + "#" * 100_000) is None


def test_a_network_file_is_read_without_the_library() -> None:
    code = (
        "import sys\nfrom astra_files.network import NetworkConfig\n"
        f"NetworkConfig.from_file({str(NETWORKS[0])!r})\nsys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
