"""`foundation.records.dataclass` against the standard library's: the same classes, made by both, behave the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation import records

FLAGS = [
    {"eq": eq, "frozen": frozen, "slots": slots, "kw_only": kw_only}
    for eq in (True, False)
    for frozen in (True, False)
    for slots in (True, False)
    for kw_only in (True, False)
]
flags = st.sampled_from(FLAGS)
kinds = st.sampled_from(["required", "default", "factory", "quiet", "unequal", "given_by_none", "hashed"])


def made(decorator: Any, flags: dict[str, bool], kinds: list[str], base: type = object, **own: Any) -> type:
    """Return a class with a field of each kind, required ones first."""
    fields: dict[str, Callable[[], Any]] = {
        "required": dataclasses.field,
        "default": lambda: 7,
        "factory": lambda: dataclasses.field(default_factory=lambda: (1, 2)),
        "quiet": lambda: dataclasses.field(default=3, repr=False),
        "unequal": lambda: dataclasses.field(default=4, compare=False),
        "given_by_none": lambda: dataclasses.field(default=5, init=False),
        "hashed": lambda: dataclasses.field(default=6, hash=False),
    }
    ordered = sorted(kinds, key=lambda kind: kind != "required")
    values = {f"{kind}{place}": fields[kind]() for place, kind in enumerate(ordered)}
    body = {"__annotations__": dict.fromkeys(values, "int"), "__module__": __name__, "__doc__": "A record.", **own}
    body |= {name: value for name, value in values.items() if not name.startswith("required")}
    return decorator(**flags)(type("Example", (base,), body))


def told(action: Callable[[], Any]) -> object:
    """Return what an action gives, or the error that it raises, as text."""
    try:
        return repr(action())
    except Exception as error:
        return type(error).__name__, str(error)


def behaviour(cls: type, arguments: list[int], names: dict[str, int]) -> list[object]:
    sys.modules[__name__].Example = cls  # type: ignore[attr-defined]  # where pickle looks for it
    facts: list[object] = [told(lambda: cls(*arguments, **names)), cls.__match_args__, repr(cls.__dataclass_params__)]  # type: ignore[attr-defined]
    try:
        one, same = cls(*arguments, **names), cls(*arguments, **names)
    except TypeError:
        return facts
    facts += [one == same, one == cls(*[x + 1 for x in arguments], **names), one == 3, dataclasses.asdict(one)]
    facts.append(told(lambda: hash(one)) if cls.__hash__ is not object.__hash__ else "by identity")
    for field in dataclasses.fields(one):
        facts.append(told(lambda name=field.name: setattr(copy.copy(one), name, 0)))  # type: ignore[misc]
        facts.append(told(lambda name=field.name: delattr(copy.copy(one), name)))  # type: ignore[misc]
        facts.append(told(lambda name=field.name: dataclasses.replace(one, **{name: 9})))  # type: ignore[misc]
    if not (cls.__dataclass_params__.frozen and cls.__dict__.get("__slots__") is not None):  # type: ignore[attr-defined]
        facts.append(told(lambda: setattr(one, "another", 0)))  # else the standard one trips over its own class
    facts += [repr(pickle.loads(pickle.dumps(one))), repr(copy.deepcopy(one)), hasattr(one, "__dict__")]
    return facts


@given(flags=flags, kinds=st.lists(kinds, max_size=5), given_=st.integers(0, 6), by_name=st.booleans())
def test_a_record_behaves_as_the_standard_one(
    flags: dict[str, bool], kinds: list[str], given_: int, by_name: bool
) -> None:
    """Construction with too few and too many values, comparison, hashes, texts, freezing, copies, pickles."""
    found = []
    for decorator in (records.dataclass, dataclasses.dataclass):
        cls = made(decorator, flags, kinds)
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        named = dict.fromkeys(names[:given_], 11) if by_name else {}
        found.append(behaviour(cls, [] if by_name else list(range(given_)), named))
    assert found[0] == found[1]


@given(
    outer=st.sampled_from([records.dataclass, dataclasses.dataclass]),
    flags=flags,
    kinds=st.lists(st.sampled_from(["default", "factory"]), min_size=1, max_size=3),
)
def test_records_inherit_from_one_another(outer: Any, flags: dict[str, bool], kinds: list[str]) -> None:
    """Ours from ours, theirs from ours (a plugin may use the standard library's), with the same outcome."""
    found = []
    for inner in (records.dataclass, dataclasses.dataclass):
        base = made(inner, flags, kinds)
        decorator = dataclasses.dataclass if inner is dataclasses.dataclass else outer
        derived = decorator(**flags)(
            type(
                "Example",
                (base,),
                {"__annotations__": {"last": "int"}, "last": 1, "__module__": __name__, "__doc__": ""},
            )
        )
        found.append(behaviour(derived, [], {"last": 4}))
        found[-1].append(told(lambda: base() == derived()))  # noqa: B023
    assert found[0] == found[1]


@pytest.mark.parametrize("flags", FLAGS)
def test_methods_of_its_own_stay(flags: dict[str, bool]) -> None:
    own = {"__repr__": lambda self: "mine", "__hash__": lambda self: 5, "__eq__": lambda self, other: True}
    one = made(records.dataclass, flags, ["default"], **own)()
    assert (repr(one), hash(one), one == 3) == ("mine", 5, True)


def test_what_follows_construction_is_done_each_time() -> None:
    seen = []
    cls = made(records.dataclass, {"frozen": True}, ["default"], __post_init__=lambda self: seen.append(self.default0))
    cls(), cls(3), cls(4)
    assert seen == [7, 3, 4]


def test_nothing_is_compiled_before_the_first_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes importing modules of records quick."""
    compiled = []
    monkeypatch.setattr(records, "exec", lambda text, known: (compiled.append(text), exec(text, known)), raising=False)
    cls = made(records.dataclass, {"frozen": True, "slots": True}, ["required", "default"])
    assert not compiled
    assert repr([cls(1), cls(2)]) == "[Example(required0=1, default1=7), Example(required0=2, default1=7)]"
    assert len(compiled) == 1
