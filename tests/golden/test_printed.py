"""The smaller commands print and write what they printed and wrote before: see `printed`."""

from __future__ import annotations

from golden.printed import HELD, STEPS, all_printed


def test_every_command_prints_what_it_printed_before() -> None:
    """Made anew by `python tests/golden/printed.py` where a change is meant; read the difference before."""
    assert {path.stem for path in HELD.iterdir()} == {*STEPS, "configs", "random"}
    for name, text in all_printed().items():
        assert text.splitlines() == (HELD / f"{name}.txt").read_text().splitlines(), name
