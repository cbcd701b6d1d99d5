"""Mixtures of experts through the main job: every way to a backend and every number of steps gives the same files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foundation.errors import UserError
from orchestrator.commands.run import simulate

BINARY = os.environ.get("ORRERY_ASTRA_SIM")
REQUESTS = [(100, 6, 0), (40, 9, 1_000_000), (7, 3, 30_000_000)]


def serve(folder: Path, output: str, *flags: str) -> bytes:
    """Return the CSV of a run of Mixtral on 4 NPUs."""
    dataset = folder / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in REQUESTS))
    model = ("--model_name", "Mixtral-8x7B-v0.1", "--hardware", "H100", "--npu_num", "4", "--dataset", str(dataset))
    assert simulate([*model, "--output", str(folder / output), *flags]) == 0
    return (folder / output).read_bytes()


@pytest.mark.parametrize("flags", [(), ("--ep_size", "4"), ("--npu_group", "2", "--ep_size", "2")])
def test_memory_text_and_et_agree_and_steps_do_not_matter(tmp_path: Path, flags: tuple[str, ...]) -> None:
    memory = serve(tmp_path, "memory.csv", *flags)
    for name, way in (
        ("text", ("--interface", "text")),
        ("et", ("--interface", "et")),
        ("one", ("--macro_steps", "1")),
    ):
        assert serve(tmp_path, f"{name}.csv", *flags, *way) == memory, name


def test_where_experts_are_held_changes_the_result(tmp_path: Path) -> None:
    assert serve(tmp_path, "divided.csv") != serve(tmp_path, "spread.csv", "--ep_size", "4")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--ep_size", "2"), "--ep_size: experts over 2 NPUs, but a stage has 4; give 1 or 4"),
        (
            ("--npu_num", "16", "--ep_size", "16"),
            "--ep_size: .* has 8 experts for 16 ranks, so that some would",
        ),
        (("--model_name", "Llama-3.1-8B", "--ep_size", "4"), "--ep_size: .*Llama-3.1-8B has no experts to spread"),
        (("--ep_size", "0"), "--ep_size: '0' is not a whole number of at least 1"),
    ],
)
def test_wrong_spreads(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serve(tmp_path, "none.csv", *flags)
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.skipif(BINARY is None, reason="no ASTRA-sim binary here (ORRERY_ASTRA_SIM names it)")
def test_the_real_binary_gives_the_same_cycles(tmp_path: Path) -> None:
    expected = serve(tmp_path, "embedded.csv", "--ep_size", "4")
    assert serve(tmp_path, "real.csv", "--ep_size", "4", "--backend", "astra-sim", "--no_cache") == expected
