"""Random draws that depend on nothing but what they are of: never on the order in which they are made."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statistics import NormalDist

_BITS = 64


def draw(seed: int, purpose: str, *of: int) -> int:
    """Return 64 random bits: a function of the seed, of what the draw is for, and of whom or what it is about."""
    text = " ".join([str(seed), purpose, *map(str, of)])
    return int.from_bytes(blake2b(text.encode(), digest_size=_BITS // 8).digest(), "big")


def uniform(seed: int, purpose: str, *of: int) -> float:
    """Return a number from 0 to 1, 1 excluded. See `draw`."""
    return (draw(seed, purpose, *of) >> 11) * 2.0**-53


def below(count: int, seed: int, purpose: str, *of: int) -> int:
    """Return a whole number from 0 to `count` - 1. See `draw`."""
    return draw(seed, purpose, *of) * count >> _BITS


def normal(seed: int, purpose: str, *of: int) -> float:
    """Return a number of the standard normal distribution. See `draw`."""
    return _standard().inv_cdf(((draw(seed, purpose, *of) >> 12) + 0.5) * 2.0**-52)


@cache
def _standard() -> NormalDist:
    from statistics import NormalDist  # with fractions and decimals; few runs draw from it

    return NormalDist()
