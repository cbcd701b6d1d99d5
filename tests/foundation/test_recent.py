"""What was made recently is found again: by key, or by the identity of what it was made of."""

from __future__ import annotations

import gc

import numpy as np

from foundation.recent import Recent, RecentByIdentity


def test_a_value_is_made_once_and_the_least_recently_used_goes() -> None:
    recent: Recent[list[str]] = Recent(2)
    first = recent.get("a", lambda: ["a"])
    recent.get("b", lambda: ["b"])
    assert recent.get("a", lambda: ["again"]) is first
    recent.get("c", lambda: ["c"])  # "b" goes
    assert recent.get("a", lambda: ["again"]) is first
    assert recent.misses == 3
    assert recent.get("b", lambda: ["new"]) == ["new"]
    assert recent.misses == 4


def test_equal_objects_are_other_objects() -> None:
    recent: RecentByIdentity[list[int]] = RecentByIdentity(4)
    array, copy = np.arange(3), np.arange(3)
    made = recent.get([array], lambda: [1])
    assert recent.get((array,), lambda: [2]) is made
    assert recent.get([copy], lambda: [3]) == [3]
    assert recent.get([array, copy], lambda: [4]) == [4]
    assert recent.get([array], lambda: [5], key="other") == [5]
    assert recent.misses == 4


def test_no_other_object_is_taken_for_one_that_is_gone() -> None:
    """Objects are kept as long as their value: their place in memory is not given to others."""
    recent: RecentByIdentity[int] = RecentByIdentity(8)
    found = []
    for number in range(8):
        found.append(recent.get([np.full(1000, number)], lambda number=number: number))
        gc.collect()
    assert found == list(range(8)) and recent.misses == 8


def test_what_is_dropped_is_made_anew() -> None:
    recent: RecentByIdentity[int] = RecentByIdentity(1)
    one, other = np.zeros(1), np.ones(1)
    for array in (one, other, one):
        recent.get([array], lambda: 0)
    assert recent.misses == 3
