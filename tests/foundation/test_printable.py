"""Names and values of others are shown on one line, without what a terminal would obey, and cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import UserError
from foundation.printable import brief, holdable, printable


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=[]), max_size=20))
def test_whatever_is_shown_is_printable_and_can_be_written(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert (shown == text) == text.isprintable()
    assert holdable(text) == ("\0" not in text and text.encode(errors="replace").decode() == text)
    said = str(UserError(text, path=text, field=text, fix=text))
    assert said.isprintable()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (-(2**200), "-(a number of 201 bits)"),
        ("a\nb", r'"a\nb"'),
        ("x" * 38, '"' + "x" * 38 + '"'),
        ("x" * 39, '"' + "x" * 36 + "..."),
        ([1, {"a": [False]}], '[1, {"a": [false]}]'),
        ([[[[[1]]]]], "[[[[...]]]]"),
        ({}, "{}"),
        ([[[[]]]], "[[[[]]]]"),
    ],
)
def test_values_as_json_would_write_them(value: object, shown: str) -> None:
    assert brief(value) == shown


def test_only_what_is_shown_is_looked_at() -> None:
    value: object = "x"
    for _ in range(40):
        value = [value] * 9  # unfolds to 9 ** 40 items
    assert len(brief(value)) <= 40
    assert brief(["y" * 10**6] * 10**6) == '["' + "y" * 35 + "..."
