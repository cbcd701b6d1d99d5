"""JSON and YAML of others: what is read, what is refused, and that refusing costs next to nothing."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation import bounds, json_values, yaml_values
from foundation.documents import Document, parse_json, parse_yaml, read_document, read_json, read_yaml
from foundation.errors import UserError
from foundation.json_places import find_deep, find_repeated

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)
TEXTS = st.text(st.characters(exclude_categories=["C"], exclude_characters="\u2028\u2029"), max_size=6)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**39), 10**39) | FINITE | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in inside for found in places(item, (*place, key)))]


@SETTINGS
@given(VALUES)
def test_json_is_what_the_standard_parser_says(value: Any) -> None:
    text = json.dumps(value)
    assert parse_json(text, "file").value == json.loads(text)


@SETTINGS
@given(VALUES)
def test_yaml_in_json_form_is_the_same(value: Any) -> None:
    """JSON is YAML, but for surrogate pairs, control characters, and keys of more than 1024 characters."""
    text = json.dumps(value, ensure_ascii=False)
    assert parse_yaml(text, "file").value == json.loads(text)


@SETTINGS
@given(VALUES)
def test_every_value_is_found_on_its_line(value: Any) -> None:
    """Both languages know the line of everything: in an indented text each value or key has a line of its own."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    found = [parse_json(text, "file"), parse_yaml(text, "file")]
    for place in places(value):
        first, second = (document.line(place) for document in found)
        assert first == second is not None
        if place and isinstance(place[-1], str):
            assert text.split("\n")[first - 1].lstrip().startswith(json.dumps(place[-1], ensure_ascii=False))
    assert found[0].line(("no such key",)) is None is found[1].line((7, "x"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n"a": 1,\n"a": 2}', 'f, line 3: the key "a" occurs twice; keep one'),
        ('{"b": {"c": 1,\n"c": 2}, "b": 3}', 'f, line 2: the key "c" occurs twice'),
        ('["NaN",\n NaN]', "f, line 2: NaN is not a number that JSON has"),
        ("[-Infinity]", "f, line 1: -Infinity is not a number"),
        ("[1,\n1e400]", "f, line 2: the number 1e400 is out of range"),
        ("[1e-400]", "the number 1e-400 is out of range"),
        ("[1,\n" + "9" * 5000 + "]", "f, line 2: the number 999999999999... has 5000 digits; write a shorter one"),
        ('{"a": 1,\n}', "f, line 2: not valid JSON: "),
        ('["\\u0000"]', 'f: the text "\\x00" holds NUL or half a surrogate pair; remove it'),
        ('{"\\ud800": 1}', "half a surrogate pair"),
        ("[" * 100 + "]" * 100, "f, line 1: the thing nests deeper than 64 levels"),
        ('{"a":\n' + "[" * 64 + "\n[1]" + "]" * 64 + "}", "f, line 2: the thing nests deeper than 64 levels"),
        ("[" * 200_000, "nests deeper than 64 levels"),
        ("", "f, line 1: not valid JSON"),
        ("[１]", "not valid JSON"),
        ("[1_000]", "not valid JSON"),
    ],
)
def test_json_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_json(text, "thing", "f")
    assert said in str(error.value)
    assert len(str(error.value)) < 200


def test_depth_and_texts_at_the_limit_are_taken() -> None:
    deep = "[" * 64 + "]" * 64
    assert parse_json(deep, "file").value == json.loads(deep)
    assert parse_yaml(deep, "file").value == json.loads(deep)
    brackets = json.dumps(["[" * 200, {"}]": 1}] * 50)
    assert parse_json(brackets, "file").value == json.loads(brackets)
    assert parse_json('"\\ud83d\\ude00"', "file").value == "\N{GRINNING FACE}"
    long = "0." + "1" * 60
    assert parse_json(f"[{long}, {'1' * 40}]", "file").value == [float(long), int("1" * 40)]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 'f, line 3: the key "a" occurs twice; keep one'),
        ("a: 1\n'a': 3\n", 'line 2: the key "a" occurs twice'),
        ("a: [.nan]", "f, line 1: .nan is not a number"),
        ("a: -.Inf", "-.Inf is not a number"),
        ("a:\n - 1e400", "f, line 2: the number 1e400 is out of range"),
        ("a: 1e-400", "out of range"),
        ("a: " + "9" * 5000, "out of range"),
        ("a: [1", "f, line 1: not valid YAML"),
        ('a: "\\0"', 'f, line 1: the text "\\x00" holds NUL or half a surrogate pair; remove it'),
        ('a: "\\ud800"', "half a surrogate pair"),
        ('a: "\\UFFFFFFFF"', "f: not valid YAML: an escape or directive out of range"),
        ("a: \0", "f, line 1: not valid YAML: special characters are not allowed"),
        (BOMB, "f, line 7: the thing unfolds to more than 2097152 values; use fewer aliases"),
        ("a: &x [*x]", 'f, line 1: the alias "x" stands inside what it names'),
        ("a: *x", 'f, line 1: the alias "x" has no anchor'),
        ("[" * 100_000, "nests deeper than 64 levels"),
        ("a: 1\n--- 2\n", "f, line 2: the thing holds more than one document"),
        ("a: !!python/object/apply:os.system [ls]", "f, line 1: the tag"),
        ("a: !!int '3'", 'the tag "tag:yaml.org,2002:int" is not supported'),
        ("? [1, 2]\n: 3", "f, line 1: a key is not a plain text"),
        ("<<: 3", "f, line 1: << is not followed by a mapping"),
    ],
)
def test_yaml_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_yaml(text, "thing", "f")
    assert said in str(error.value)
    assert len(str(error.value)) < 200


def test_yaml_scalars_follow_the_core_schema() -> None:
    text = """
    whole: [7, -3, +5, 0]
    numbers: [0.5, .5, 5., 1e3, -1.5E-2]
    texts: [yes, off, 010, 1_000, １２, 1:30, 2024-01-01, 0x10, "7", '1.5', !!str 8, 1.2.3]
    nothing: [null, ~, Null, ]
    switches: [true, True, FALSE]
    2024-01-01: a date
    8: a number
    """
    assert parse_yaml(text, "file").value == {
        "whole": [7, -3, 5, 0],
        "numbers": [0.5, 0.5, 5.0, 1000.0, -0.015],
        "texts": ["yes", "off", "010", "1_000", "１２", "1:30", "2024-01-01", "0x10", "7", "1.5", "8", "1.2.3"],
        "nothing": [None, None, None],
        "switches": [True, True, False],
        "2024-01-01": "a date",
        "8": "a number",
    }


def test_plain_yaml_keeps_scalars_as_they_are_written() -> None:
    text = "a: [1, 0500, true, ~, .nan]\n<<: 5"
    assert parse_yaml(text, "file", plain=True).value == {"a": ["1", "0500", "true", "~", ".nan"], "<<": "5"}


def test_aliases_and_merges_are_read_as_others_read_them() -> None:
    text = "base: &base {x: 1, y: 2}\none: {<<: *base, y: 3}\ntwo: {<<: [*base, {z: 4}]}\nlist: &l [1]\nagain: *l\n"
    assert parse_yaml(text, "file").value == yaml.safe_load(text)


def test_keys_may_have_anchors() -> None:
    assert parse_yaml("&name key: 1\nother: *name\n", "file").value == {"key": 1, "other": "key"}


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("[a, b]", 3), ("{a: b}", 2), ("{a: {b: [c]}}", 4), ("[&x [a, b], *x]", 7), ("{a: &x [b], c: *x}", 5)],
)
def test_every_value_counts_once_however_it_is_repeated(text: str, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_values, "MOST_NODES", nodes)
    assert parse_yaml(text, "file").value is not None
    monkeypatch.setattr(yaml_values, "MOST_NODES", nodes - 1)
    with pytest.raises(UserError, match=f"unfolds to more than {nodes - 1} values; use fewer aliases"):
        parse_yaml(text, "file")


def test_json_brackets_are_counted_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MOST_NODES", 3)
    assert parse_json('[[], {"a": 1}]', "file").value == [[], {"a": 1}]
    with pytest.raises(UserError, match="holds more than 3 objects and lists"):
        parse_json('[[], {"a": []}]', "file")


def test_an_alias_bomb_costs_little() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            parse_yaml(BOMB, "file")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_empty_yaml_is_nothing() -> None:
    assert parse_yaml("# only a comment\n", "file") == Document(None, "file", lines={})


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"a": 1}'), ("a.yaml", "a: 1")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_document(tmp_path / name, "file").value == {"a": 1}
    assert parse_json('\ufeff{"a": 1}', "file").value == parse_yaml("\ufeffa: 1", "file").value == {"a": 1}


@pytest.mark.parametrize("parts", [[b'{"a": 1}'], [b'{"a": ', b"1", b"}"]])
def test_gzip_files_are_unpacked(tmp_path: Path, parts: list[bytes]) -> None:
    path = tmp_path / "case.json.gz"
    path.write_bytes(b"".join(map(gzip.compress, parts)) + b"\0\0")
    assert read_json(path, "case").value == {"a": 1}


def test_a_gzip_bomb_costs_no_more_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="the case unpacks to more than 100000 bytes"):
            read_json(path, "case", 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"[1]")[:-3], "is a gzip file that was cut off"),
        (b"\x1f\x8b garbage", "is a damaged gzip file"),
        ('{"a": 1}'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b'{\n"a": "\xff"}', "f.json, line 2: the file is not UTF-8 text"),
        (b" " * (bounds.CONFIGURATION_BYTES + 1), "is larger than 4194304 bytes; is this the right file?"),
        (b"[" + b"{}," * bounds.MOST_NODES, "holds more than 2097152 objects and lists"),
    ],
    ids=["cut", "damaged", "utf-16", "latin", "large", "many"],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(path, "file", bounds.DATA_BYTES if said.startswith("holds") else bounds.CONFIGURATION_BYTES)
    assert said in str(error.value)


@pytest.mark.parametrize("reader", [read_json, read_yaml])
def test_what_may_never_end_is_not_read(tmp_path: Path, reader: Any) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(UserError, match=f"the file cannot be read: it is {kind}; name an ordinary file"):
            reader(path, "file")
    with pytest.raises(UserError, match=r"none: the file does not exist; check the path"):
        reader(tmp_path / "none", "file")
    for name, said in (("x" * 300, "File name too long"), ("a\0b", "embedded null byte")):
        with pytest.raises(
            UserError, match=f"{name[-3:-1]}.*: the file cannot be read: {said}".replace("\0", r"\\x00")
        ):
            reader(tmp_path / name, "file")


@pytest.mark.parametrize(
    "text", ["", "{", "]", "[1]", '{"a": 1, "b": {"a": 2}}', ":", '{"a": 1} ] "a": 2', '[{"a": 1}, {"a": 2}]']
)
def test_what_repeats_no_key_and_is_not_deep(text: str) -> None:
    """Whether or not it is JSON."""
    assert find_repeated(text) is None
    assert find_deep(text, 2) is None


def test_what_repeats_a_key_or_is_deep() -> None:
    assert find_repeated('{"a": 1,\n "b": {"a": 2,\n "a": 3}}') == ("a", 3)
    assert find_repeated('[{"a": 1}, {"b": 1,\n "b": 2}]') == ("b", 2)
    assert (find_deep("[\n{}\n]", 1), find_deep("[[\n[]]]", 2)) == (2, 2)
