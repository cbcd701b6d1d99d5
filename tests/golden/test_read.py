"""Files are read as they were before: see `read`."""

from __future__ import annotations

from golden.read import HELD, as_read


def test_files_are_read_as_before() -> None:
    """Made anew by `python tests/golden/read.py` where a change is meant."""
    held = HELD.read_text().splitlines()
    assert len(held) > 60
    assert as_read() == held
