"""The runs that benchmarks start are runs that the command line takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import backends_equal, main_job
from orchestrator.settings.specification import from_flags


@pytest.mark.parametrize("kind", backends_equal.KINDS)
def test_runs_on_a_binary(kind: str, tmp_path: Path) -> None:
    (tmp_path / "network.yml").write_text(backends_equal.TWO_DIMS)
    spec = from_flags(backends_equal.flags_of(kind, tmp_path))
    assert (spec.engines[0].network.link_bw is None) == (kind == "TP 8, two dimensions")


@pytest.mark.parametrize(("name", "flags", "aim"), main_job.CASES)
def test_runs_that_are_timed(name: str, flags: tuple[str, ...], aim: str) -> None:
    assert from_flags([*flags, "--output", "out.csv"]).engines, name
