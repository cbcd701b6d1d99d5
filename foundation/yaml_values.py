"""YAML text -> values and their lines, within the bounds of `foundation.documents`.

Built from the parser's events one at a time, so that depth, aliases and keys are checked before anything is made of
them. An alias is the value it names, not a copy; what it would unfold to is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from foundation.bounds import MOST_DEPTH, MOST_NODES
from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError
from foundation.key_paths import KeyPath
from foundation.printable import brief, holdable, printable

_NULL, _TRUE, _FALSE = ({"", "~", "null", "Null", "NULL"}, {"true", "True", "TRUE"}, {"false", "False", "FALSE"})
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")
_MERGE = "<<"


class _Node(NamedTuple):
    """A finished value and how many values it unfolds to."""

    value: Any
    weight: int


def parse(text: str, what: str, path: str | Path | None, *, plain: bool) -> tuple[Any, dict[KeyPath, int]]:
    """Return the value of the one document in `text` (None for none) and the line of every value in it."""
    composer = _Composer(yaml.parse(text, Loader=yaml.SafeLoader), what, path, plain)
    try:
        return composer.document(), composer.lines
    except yaml.YAMLError as error:
        mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        line = mark.line + 1 if mark is not None else None
        if mark is None and isinstance(position, int):
            line = text.count("\n", 0, position) + 1
        said = f"not valid YAML: {printable(str(problem)[:200])}"
        raise UserError(said, path=path, line=line, fix="correct the syntax") from None
    except (ValueError, OverflowError):  # the parser's own, at escapes and directives beyond all bounds
        raise UserError("not valid YAML: an escape or directive out of range", path=path) from None


class _Composer:
    """Makes values of one stream of events; `lines` fills up with where they stand."""

    def __init__(self, events: Iterator[Event], what: str, path: str | Path | None, plain: bool) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._events, self._what, self._path, self._plain = events, what, path, plain
        self._anchors: dict[str, _Node | None] = {}
        """The anchors so far; None where the value is still being read."""

    def document(self) -> Any:
        """Read the stream to its end."""
        found: _Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent) and found is not None:
                raise self._error(f"the {self._what} holds more than one document", event, "keep one")
            if isinstance(event, NodeEvent):
                found = self._node(event, ())
        return None if found is None else found.value

    def _node(self, event: NodeEvent, place: KeyPath) -> _Node:
        self.lines.setdefault(place, _line(event))
        if isinstance(event, AliasEvent):
            return self._alias(event)
        if isinstance(event, CollectionStartEvent):
            node = self._container(event, place)
        else:
            assert isinstance(event, ScalarEvent)
            node = _Node(self._scalar(event), 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _container(self, event: CollectionStartEvent, place: KeyPath) -> _Node:
        if len(place) >= MOST_DEPTH:
            raise self._error(f"the {self._what} nests deeper than {MOST_DEPTH} levels", event)
        if event.tag is not None:
            raise self._tag_error(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        return self._mapping(place) if isinstance(event, MappingStartEvent) else self._sequence(place)

    def _sequence(self, place: KeyPath) -> _Node:
        items: list[Any] = []
        weight = 1
        for event in self._inside():
            node = self._node(event, (*place, len(items)))
            weight = self._add(weight, node, event)
            items.append(node.value)
        return _Node(items, weight)

    def _mapping(self, place: KeyPath) -> _Node:
        values: dict[str, Any] = {}
        merged: list[tuple[NodeEvent, Any]] = []
        weight = 1
        inside = self._inside()
        for event in inside:
            key = self._key(event, values)
            self.lines[(*place, key)] = _line(event)
            node = self._node(next(inside), (*place, key))
            weight = self._add(weight, node, event)
            if key == _MERGE and getattr(event, "style", None) is None and not self._plain:
                merged.append((event, node.value))
            else:
                values[key] = node.value
        for event, base in merged:
            self._merge(values, base, event)
        return _Node(values, weight)

    def _inside(self) -> Iterator[NodeEvent]:
        """Yield the events of a container's children; each child must be read before the next is asked for."""
        for event in self._events:
            if isinstance(event, CollectionEndEvent):
                return
            assert isinstance(event, NodeEvent)
            yield event

    def _key(self, event: NodeEvent, values: dict[str, Any]) -> str:
        if not isinstance(event, ScalarEvent):
            raise self._error("a key is not a plain text", event, "write name: value")
        key = self._text(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Node(key, 1)
        if key in values:
            raise self._error(f"the key {brief(key)} occurs twice", event, "keep one")
        return key

    def _merge(self, values: dict[str, Any], base: Any, event: NodeEvent) -> None:
        """``<<: *base``: take over the keys of `base` that the mapping does not give itself."""
        for one in base if isinstance(base, list) else [base]:
            if not isinstance(one, dict):
                raise self._error("<< is not followed by a mapping", event, "write <<: *anchor")
            for key, value in one.items():
                values.setdefault(key, value)

    def _alias(self, event: AliasEvent) -> _Node:
        name = event.anchor
        if name not in self._anchors:
            raise self._error(f"the alias {brief(name)} has no anchor", event, "define it above")
        node = self._anchors[name]
        if node is None:
            raise self._error(f"the alias {brief(name)} stands inside what it names", event, "write it out")
        return node

    def _add(self, weight: int, node: _Node, event: NodeEvent) -> int:
        if weight + node.weight > MOST_NODES:
            raise self._error(f"the {self._what} unfolds to more than {MOST_NODES} values", event, "use fewer aliases")
        return weight + node.weight

    def _text(self, event: ScalarEvent) -> str:
        text: str = event.value
        if event.tag not in _TEXT_TAGS:
            raise self._tag_error(event)
        if not holdable(text):
            raise self._error(f"the text {brief(text)} holds NUL or half a surrogate pair", event, "remove it")
        return text

    def _scalar(self, event: ScalarEvent) -> Any:
        text = self._text(event)
        if self._plain or event.style is not None or event.tag is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _NOT_FINITE.fullmatch(text):
            raise self._error(f"{text} is not a number", event, "write a finite number")
        if _NUMBER.fullmatch(text) is None or _LEADING_ZERO.match(text):
            return text
        whole = whole_number(text)
        value = decimal_number(text) if whole is None else whole
        if value is None:
            raise self._error(f"the number {text[:40]} is out of range", event, "write one that a 64-bit float holds")
        return value

    def _tag_error(self, event: CollectionStartEvent | ScalarEvent) -> UserError:
        return self._error(f"the tag {brief(event.tag)} is not supported", event, "write the value without a tag")

    def _error(self, text: str, event: Event, fix: str = "") -> UserError:
        return UserError(text, path=self._path, line=_line(event), fix=fix)


def _line(event: Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1
