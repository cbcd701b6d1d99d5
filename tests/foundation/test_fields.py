"""Typed reading of fields: what is taken at the limits, what is refused, and that all problems come at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from foundation.documents import Document, parse_json, parse_yaml
from foundation.errors import UserError
from foundation.fields import INT64_MAX, LARGEST, Fields


def fields(**values: Any) -> Fields:
    return Fields.of(parse_json(json.dumps(values), "thing", "f.json"))


def problems(found: Fields) -> list[str]:
    return [str(problem) for problem in found.problems]


@pytest.mark.parametrize(
    ("read", "taken", "refused", "expected"),
    [
        (lambda f: f.integer("x"), [0, -3, INT64_MAX, -INT64_MAX], [1.0, True, "1", 2**63], "a whole number"),
        (lambda f: f.integer("x", low=2), [2, 3], [1], "a whole number of at least 2"),
        (lambda f: f.integer("x", low=-1, high=4), [-1, 4], [-2, 5], "a whole number from -1 to 4"),
        (lambda f: f.positive_int("x"), [1, LARGEST], [0, LARGEST + 1], "a whole number from 1 to 16777216"),
        (lambda f: f.number("x"), [0, 1e15, -1e15, 1e-15], [1.1e15, 1e-320, "1", False], "a number"),
        (lambda f: f.number("x", low=0, high=1), [0, 1, 0.5], [-0.1, 1.1], "a number of at least 0 and at most 1"),
        (lambda f: f.number("x", above=0, high=1.5), [1.5], [0, 1.6], "a number above 0 and at most 1.5"),
        (lambda f: f.number("x", high=3), [3, -9], [3.5], "a number of at most 3"),
        (lambda f: f.positive_number("x"), [1e15, 3], [0, -1, [1], 2e15], "a number above 0 and at most 1e.15"),
        (lambda f: f.boolean("x"), [True, False], [0, 1, "true", {}], "true or false"),
        (lambda f: f.text("x"), ["", "a"], [1, ["a"]], "a string"),
        (lambda f: f.choice("x", ("ring", "tree")), ["tree"], [4], "one of ring, tree"),
        (lambda f: f.items("x"), [[], [1, "a"]], [{}, 3], "a list"),
    ],
)
def test_values_are_taken_to_the_limit_and_refused_beyond(
    read: Callable[[Fields], Any], taken: list[Any], refused: list[Any], expected: str
) -> None:
    for value in taken:
        found = fields(x=value)
        assert read(found) == value
        assert found.problems == []
    for value in refused:
        found = fields(x=value)
        harmless = read(found)
        assert read(fields(x=list(harmless) if harmless == () else harmless)) in (harmless, [])
        with pytest.raises(UserError, match=rf"^f\.json, line 1, x: .* is not {expected}$"):
            found.finish()


def test_numbers_come_out_as_floats_and_defaults_as_they_are() -> None:
    assert type(fields(x=3).number("x")) is float
    assert fields().number("x", default=None) is None
    assert fields(x=None).integer("x", default=5) == 5
    assert fields().text("x", default="y") == "y"
    assert fields().boolean("x", default=True) is True
    assert fields().items("x", default=()) == ()
    assert fields().choice("x", ("a",), default=None) is None


def test_the_first_name_that_is_present_counts() -> None:
    assert fields(b=2, c=3).positive_int("a", "b", "c") == 2
    assert fields(a=None, c=3).has("a", "c") and not fields(a=None).has("a")
    missing = fields()
    missing.positive_int("a", "b")
    assert problems(missing) == ["f.json: a or b is missing; give a whole number from 1 to 16777216"]


def test_all_problems_come_at_once_with_their_lines_and_places() -> None:
    text = '{\n"requests": [\n {"arrival": 1},\n {"arrival": -1},\n {},\n 7],\n"kind": {"name": 3,\n"sort": 1}}'
    found = Fields.of(parse_json(text, "case", "c.json"))
    assert [one.integer("arrival", low=0) for one in found.objects("requests")] == [1, 1, 1, 1]
    kind = found.object("kind")
    kind.text("name")
    kind.only({"name", "sorted"})
    found.one_of("prompt_len", "prompt_ids")
    with pytest.raises(UserError) as error:
        found.finish()
    assert str(error.value) == (
        "c.json: line 6, requests[3]: 7 is not an object; "
        "line 4, requests[1].arrival: -1 is not a whole number of at least 0; "
        "line 5, requests[2]: arrival is missing; give a whole number of at least 0; "
        "line 7, kind.name: 3 is not a string; "
        "line 8, kind.sort: unknown field; did you mean sorted?; "
        "prompt_len or prompt_ids is missing"
    )


def test_yaml_and_json_are_read_alike() -> None:
    text = "nodes:\n- {cpus: 4}\n- {cpus: x}\n"
    found = Fields.of(parse_yaml(text, "cluster", "c.yaml"))
    assert [node.positive_int("cpus") for node in found.objects("nodes")] == [4, 1]
    assert problems(found) == ['c.yaml, line 3, nodes[1].cpus: "x" is not a whole number from 1 to 16777216']


def test_lists_of_one_kind() -> None:
    found = fields(a=[1, "2", 3, -1, True], b=["x", None], c=[0.5, 2, "x"], d="no list")
    assert found.integers("a", low=0) == (1, 3)
    assert found.texts("b") == ("x",)
    assert found.numbers("c", low=0) == (0.5, 2.0)
    assert found.integers("d") == found.integers("absent") == ()
    assert [text.split(", ", 2)[2] for text in problems(found)] == [
        'a[1]: "2" is not a whole number of at least 0',
        "a[3]: -1 is not a whole number of at least 0",
        "a[4]: true is not a whole number of at least 0",
        "b[1]: null is not a string",
        'c[2]: "x" is not a number of at least 0',
        'd: "no list" is not a list',
    ]


def test_near_choices_are_named() -> None:
    found = fields(x="rnig")
    assert found.choice("x", ("ring", "tree")) == "ring"
    assert problems(found) == ['f.json, line 1, x: "rnig" is unknown; did you mean ring?']


def test_two_that_exclude_each_other() -> None:
    found = fields(memory_gb=80, memory_gib=80)
    assert found.one_of("memory_gb", "memory_gib") == "memory_gb"
    said = "memory_gb and memory_gib are both given; leave out all but memory_gb"
    assert problems(found) == [f"f.json, line 1, memory_gib: {said}"]
    assert fields(memory_gib=80).one_of("memory_gb", "memory_gib") == "memory_gib"


def test_an_object_that_is_none() -> None:
    found = fields(x=3)
    assert list(found.object("x").names()) == list(found.object("absent").names()) == []
    found.object("x").text("name")
    assert problems(found) == ["f.json, line 1, x: 3 is not an object"], "what it lacks is no fault of its own"
    assert not found.sound("x") and found.sound("absent")
    with pytest.raises(
        UserError, match=r"^f\.json, line 1: the thing is \[1, 2\], not an object of named fields; write"
    ):
        Fields.of(parse_json("[1, 2]", "thing", "f.json"))


def test_names_and_values_of_others_stay_on_one_short_line() -> None:
    found = fields(**{"a\n\x1b[31m": "\x1b[2J" + "x" * 10_000, "b": [[[[[1] * 1000]]]] * 1000, "c": 10**400})
    found.only(())
    for name in ("a\n\x1b[31m", "b", "c"):
        found.boolean(name)
    with pytest.raises(UserError) as error:
        found.finish()
    said = str(error.value)
    assert said.isprintable() and len(said) < 600
    assert r'a\n\x1b[31m: "\x1b[2Jxxx' in said and "b: [[[[...]]], [" in said and "c: (a number of 1329 bits)" in said


def test_endless_problems_are_counted() -> None:
    found = fields(a=["x"] * 5000)
    found.integers("a")
    with pytest.raises(UserError, match=r"a\[19\]: \"x\" is not a whole number; and 4980 more$"):
        found.finish()


def test_without_problems_nothing_is_raised() -> None:
    found = Fields.of(Document({"a": 1}, "thing"))
    assert found.integer("a") == 1
    found.only(["a"])
    found.finish()
    assert found.path is None


def test_only_what_was_read_soundly_is_to_be_compared() -> None:
    found = fields(width=-1, heads=4)
    assert found.sound("width", "heads", "depth"), "nothing has been read yet"
    for name in ("width", "heads"):
        found.positive_int(name)
    found.positive_int("depth", "layers")
    assert found.sound("heads") and not found.sound("heads", "width")
    assert not found.sound("depth") and not found.sound("layers")


def test_a_fault_is_told_once_however_often_the_field_is_read() -> None:
    found = fields(x=0, y=["a", 1])
    assert (found.positive_int("x"), found.positive_int("x"), found.number("z"), found.number("z")) == (1, 1, 1.0, 1.0)
    assert found.texts("y") == ("a",) and not found.sound("y")
    told = [text.split(", ", 1)[-1] for text in problems(found)]
    assert told == [
        "line 1, x: 0 is not a whole number from 1 to 16777216",
        "f.json: z is missing; give a number",
        "line 1, y[1]: 1 is not a string",
    ]


def test_what_was_never_asked_for() -> None:
    found = fields(a=1, b=None, c=2, d=[1], e={"f": 1, "g": 2}, h="ring", i=3, j=[{"k": 1}])
    assert found.unread() == ("a", "c", "d", "e", "h", "i", "j")
    found.integer("a", "x")
    found.integers("d")
    found.choice("h", ("ring",))
    found.has("c")
    found.objects("j")
    assert found.unread() == ("e", "i")
    found.pass_over("i", "z")
    inner = found.object("e")
    assert found.unread() == () and inner.unread() == ("f", "g")
    found.object("e").integer("f")
    assert inner.unread() == ("g",), "an object is the same each time"
