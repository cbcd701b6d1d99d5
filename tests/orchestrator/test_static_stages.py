"""Static batches in turn over several stages: the same whatever number of steps is worked out at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import simulate

REQUESTS = [(30, 9, 0), (200, 12, 0), (7, 5, 0), (90, 20, 10), (15, 3, 20), (60, 16, 20), (5, 30, 25)]


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_batches_take_turns_in_the_same_order(tmp_path: Path, stages: int) -> None:
    dataset = tmp_path / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in REQUESTS))
    flags = ["--model_name", "gpt2", "--hardware", "H100", "--dataset", str(dataset), "--scheduling", "none", "--quiet"]
    flags += ["--npu_num", str(stages), "--npu_group", str(stages), "--max_batch", "2", "--batch_delay", "0"]
    found = set()
    for steps in (1, 3, 512):
        output = tmp_path / f"{steps}.csv"
        assert simulate([*flags, "--macro_steps", str(steps), "--output", str(output)]) == 0
        found.add(output.read_bytes())
    assert len(found) == 1
