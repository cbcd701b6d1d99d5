"""Numbers in ASCII digits and nothing else."""

import pytest

from foundation.digits import decimal_number, whole_number


@pytest.mark.parametrize("text", ["", " 1", "1 ", "1_000", "１２", "0x1", "1.0", "--1", "+", "9" * 41, "1e3", "nan"])
def test_what_is_no_whole_number(text: str) -> None:
    assert whole_number(text) is None


def test_whole_numbers_to_their_limits() -> None:
    assert [whole_number(text) for text in ("0", "-7", "+3", "007", "9" * 40)] == [0, -7, 3, 7, int("9" * 40)]
    assert [whole_number(text, 1, 3) for text in ("0", "1", "3", "4")] == [None, 1, 3, None]


@pytest.mark.parametrize(
    "text",
    ["", ".", "1_0", "nan", "inf", "-inf", "1e400", "-1e400", "1e-400", "１.５", "1e", "1,5", "9" * 401],
)
def test_what_is_no_number(text: str) -> None:
    assert decimal_number(text) is None


@pytest.mark.parametrize(
    "text", ["0", "-0.0", "0e-9", "2", ".5", "5.", "+1.25e-3", "1E+308", "4.9e-324", "0." + "1" * 60]
)
def test_numbers(text: str) -> None:
    assert decimal_number(text) == float(text)
