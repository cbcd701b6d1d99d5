"""What commands say of themselves is what it was: see `pages`."""

from __future__ import annotations

import pytest
from golden.pages import HELD, PAGES, page


def test_every_page_is_held() -> None:
    assert {path.stem for path in HELD.iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_said_before(name: str) -> None:
    """Made anew by `python tests/golden/pages.py` where a change is meant."""
    assert page(name) == (HELD / f"{name}.txt").read_text()
