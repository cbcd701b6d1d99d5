"""A narrow catalogue: what a command line chooses and nothing else, with the same outcome as the whole one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UserError
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import parse
from foundation.settings.narrowing import narrowed
from foundation.settings.reading import Layers, flat, read
from orchestrator.settings.specification import RunCommand, commanded, from_flags, given_by

WORDS = [
    "--scheduling", "vllm", "--scheduling=sarathi", "--kv-manage", "max", "--router", "--max_num_seqs", "7", "--gen",
    "--profile", "alpaca-like", "--arrivals", "gamma", "--lengths", "--input_mean", "30", "--perf_model", "roofline",
    "--perf_table", "--no_gen", "--npu_num", "4", "--npu_num=x", "--expert_routing", "zipf", "--autoscaler", "queue",
    "--admission", "rate", "--backend", "embedded", "--nonsense", "--output", "out.csv", "--chunk_size=8", "-h", "",
]  # fmt: skip


def outcome(arguments: Sequence[str], narrow: bool) -> object:
    try:
        spec = commanded(arguments)[0] if narrow else read(RunCommand, given_by(arguments)).run
    except UserError as error:
        return str(error)
    return flat(spec)


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_narrow_and_whole_read_the_same(arguments: list[str]) -> None:
    """Values, names, and every word of an error."""
    assert outcome(arguments, narrow=True) == outcome(arguments, narrow=False)


@pytest.mark.parametrize(
    "line",
    [
        "--scheduling vllm --max_num_seqs 7", "--scheduling orca --kv_manage max", "--arrivals gamma",
        "--npu-num 2 --no_gen", "--router least-outstanding --instances 2",
    ],
)  # fmt: skip
def test_what_a_line_chooses_is_in_its_catalogue(line: str) -> None:
    known = narrowed(RunCommand, line.split(), whole_for=())
    assert known is not None and len(known.entries) < len(catalogue(RunCommand).entries)
    spec = read(RunCommand, Layers(flags=parse(line.split(), known)), known).run
    assert flat(spec) == flat(from_flags(line.split()))


@pytest.mark.parametrize("line", ["--max_num_seqs 7", "--nonsense 3", "--profile_dir x", "--settings run.yml"])
def test_what_the_line_alone_cannot_tell_takes_the_whole(line: str) -> None:
    assert narrowed(RunCommand, line.split(), whole_for={"settings"}) is None


def test_what_is_not_chosen_is_not_imported() -> None:
    """Policies, generators and formats of a plain run: its own."""
    code = (
        "import sys\nfrom orchestrator.settings.specification import commanded\n"
        "commanded(['--scheduling', 'vllm', '--dataset', 'few.tsv'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "orchestrator.schedulers.policies.vllm" in loaded
    for name in ("schedulers.policies.orca", "requests.generators.lengths.zipf", "requests.formats.sharegpt",
                 "cluster.autoscaling.queue", "clients.http"):  # fmt: skip
        assert f"orchestrator.{name}" not in loaded
    assert not loaded & {"numpy", "yaml", "rich", "google.protobuf"}
