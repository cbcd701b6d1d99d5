"""Whole runs give the bytes they gave before: the table of `whole_runs`, run by run."""

from __future__ import annotations

import json

import pytest
from golden.whole_runs import DIGESTS, RUNS, digests_of

from orchestrator.commands.run import simulate

HELD = json.loads(DIGESTS.read_text())


def test_every_run_has_its_digests_and_no_two_are_the_same_run() -> None:
    assert list(HELD) == list(RUNS) and len(HELD) >= 40
    assert len({row["csv"] for row in HELD.values()}) >= 0.85 * len(HELD)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_bytes_it_gave_before(name: str) -> None:
    assert digests_of(name, simulate) == HELD[name]
