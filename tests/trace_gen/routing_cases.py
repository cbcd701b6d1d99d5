"""Routings for the tests of how tokens choose experts."""

from __future__ import annotations

from functools import cache

import numpy as np
from trace_cases import QWEN, model

from trace_gen.mlp.choices import Choices, ChosenRouting
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.routing import ExpertSpread, IntArray, Routing
from trace_gen.mlp.routings import routings

PLAIN = Experts(16, 4, 64)
GROUPED = Experts(64, 6, 64, groups=8, groups_per_token=3)
LAYERS = (3, 0, 7)
DRAWN = ("random", "zipf")
COUNTED = (*DRAWN, "round_robin")


@cache
def routing(name: str, seed: int = 0, **settings: object) -> Routing:
    return routings.get(name)(**settings).routing(model(QWEN), seed)


def choices(name: str, seed: int = 0, **settings: object) -> Choices:
    made = routing(name, seed, **settings)
    assert isinstance(made, ChosenRouting)
    return made.choices


def chosen(name: str, experts: Experts, tokens: int, step: int = 0, seed: int = 0, **settings: object) -> IntArray:
    """Return the tokens of each expert in layer 5."""
    return choices(name, seed, **settings).chosen(experts, [5], step, range(tokens))[0]


def slowest(name: str, experts: Experts, ranks: int, tokens: int, redundant: int = 0, step: int = 0) -> int:
    """Return the copies that the busiest rank of layer 5 has."""
    spread = ExpertSpread(experts, ranks, ranks, redundant)
    return int(routing(name).loads(spread, [5], step, range(tokens)).copies.max())


def by_numpy(weights: np.ndarray, take: int, times: int, seed: int) -> np.ndarray:
    """Return how often each choice is among `take` that numpy draws by weight, none of them twice."""
    random = np.random.default_rng(seed)
    odds = weights / weights.sum()
    drawn = [random.choice(len(weights), take, replace=False, p=odds) for _ in range(times)]
    return np.bincount(np.concatenate(drawn), minlength=len(weights))
