"""Whole runs leave the words and the numbers they left before: see `left`."""

from __future__ import annotations

import json

import pytest
from golden.left import HELD, RUNS, files_of


def test_every_run_is_held_and_shows_something_of_its_own() -> None:
    assert {path.name for path in HELD.iterdir()} == set(RUNS)
    summaries = [json.loads((HELD / name / "run-summary.json").read_text()) for name in RUNS]
    for field in ("evictions", "rejected_requests", "skipped"):
        assert any(summary[field] for summary in summaries), field


@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_what_it_left_before(name: str) -> None:
    """Made anew by `python tests/golden/left.py` where a change is meant; read the difference before."""
    held = {path.name: path.read_text() for path in (HELD / name).iterdir()}
    found = files_of(name)
    assert set(found) == set(held)
    for file, text in held.items():
        assert found[file].splitlines() == text.splitlines(), file
