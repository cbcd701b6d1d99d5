"""Batches in turn over several stages of a real model: the same whatever number of steps is worked out at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.commands.run import simulate

REQUESTS = [(30, 9, 0), (200, 12, 0), (7, 5, 0), (90, 20, 10), (15, 3, 20), (60, 16, 20), (5, 30, 25)]


POLICIES = {
    "none": "--max_batch 2 --batch_delay 0",
    "static": "--max_batch 2 --batch_delay 0",
    "continuous": "--max_batch 3",
    "chunked-mixed-continuous": "--prefill_chunk 50 --max_batch 3",
    "lightllm": "--max_waiting_iters 2 --running_max_req_size 3",
}


@pytest.mark.parametrize(
    ("policy", "stages"), [("none", 3), ("none", 4), *((name, stages) for name in POLICIES for stages in (1, 2))]
)
def test_batches_take_turns_in_the_same_order(tmp_path: Path, policy: str, stages: int) -> None:
    dataset = tmp_path / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in REQUESTS))
    flags = ["--model_name", "gpt2", "--hardware", "H100", "--dataset", str(dataset), "--scheduling", policy, "--quiet"]
    flags += ["--npu_num", str(stages), "--npu_group", str(stages), *POLICIES[policy].split()]
    found = set()
    for steps in (1, 3, 512):
        output = tmp_path / f"{steps}.csv"
        assert simulate([*flags, "--macro_steps", str(steps), "--output", str(output)]) == 0
        found.add(output.read_bytes())
    assert len(found) == 1
