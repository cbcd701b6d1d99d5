"""How tokens choose experts: distributions; and that a draw is its seed's, layer's, step's and token's alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_cases import COUNTED, DRAWN, GROUPED, LAYERS, PLAIN, by_numpy, choices, chosen, routing, slowest

from trace_gen.mlp import draws
from trace_gen.mlp.draws import Draws, numbers, shares, without_replacement
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.routing import BalancedRouting, ExpertSpread

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def mixtures(draw: st.DrawFn) -> Experts:
    """Any experts, in groups or not, down to tokens that choose all of what they may."""
    groups, size = draw(st.sampled_from([1, 1, 2, 4, 8])), draw(st.integers(1, 12))
    open_to = draw(st.integers(1, groups))
    chosen = draw(st.integers(1, open_to * size))
    return Experts(groups * size, chosen, 64, groups=groups, groups_per_token=open_to)


# -- what holds for every routing


@SETTINGS
@given(experts=mixtures(), name=st.sampled_from(COUNTED), tokens=st.integers(0, 90), step=st.integers(0, 10**9))
def test_every_token_chooses_its_experts_and_none_twice(experts: Experts, name: str, tokens: int, step: int) -> None:
    counts = choices(name, 3).chosen(experts, LAYERS, step, range(tokens))
    assert counts.shape == (len(LAYERS), experts.count) and counts.dtype == np.int64
    assert (counts.sum(axis=1) == tokens * experts.per_token).all()
    assert ((counts >= 0) & (counts <= tokens)).all()


@SETTINGS
@given(experts=mixtures(), name=st.sampled_from(COUNTED), tokens=st.integers(1, 40))
def test_a_token_stays_within_its_groups(experts: Experts, name: str, tokens: int) -> None:
    for token in range(tokens):
        counts = choices(name, 1).chosen(experts, [2], 9, range(token, token + 1))
        groups = counts.reshape(experts.groups, -1).any(axis=1).sum()
        assert -(-experts.per_token * experts.groups // experts.count) <= groups <= experts.groups_per_token


@SETTINGS
@given(
    experts=mixtures(),
    name=st.sampled_from(COUNTED),
    layers=st.lists(st.integers(0, 90), min_size=1, max_size=5, unique=True),
    tokens=st.integers(1, 60),
    cut=st.integers(0, 60),
    step=st.integers(0, 1000),
)
def test_the_order_of_evaluation_does_not_matter(
    experts: Experts, name: str, layers: list[int], tokens: int, cut: int, step: int
) -> None:
    """Layers together or alone, tokens at once or in parts, with steps before or not: the same counts."""
    whole = choices(name, 5).chosen(experts, layers, step, range(tokens))
    fresh = routing.__wrapped__(name, 5).choices  # nothing was asked of it yet
    for place in reversed(range(len(layers))):
        fresh.chosen(experts, [layers[place]], step + 1, range(tokens))
        parts = [range(min(cut, tokens)), range(min(cut, tokens), tokens)]
        alone = sum(fresh.chosen(experts, [layers[place]], step, part)[0] for part in reversed(parts))
        assert (alone == whole[place]).all()


@SETTINGS
@given(name=st.sampled_from(COUNTED), tokens=st.integers(1, 200), ranks=st.sampled_from([1, 2, 4, 8]))
def test_loads_of_ranks_sum_to_all_copies_and_the_slowest_has_the_mean_at_least(
    name: str, tokens: int, ranks: int
) -> None:
    for redundant in (0, ranks) if ranks > 1 else (0,):
        spread = ExpertSpread(GROUPED, ranks, ranks, redundant)
        loads = routing(name).loads(spread, LAYERS, 4, range(tokens))
        assert loads.tokens is not None
        assert loads.tokens.shape == (len(LAYERS), ranks, (GROUPED.count + redundant) // ranks)
        assert (loads.copies == loads.tokens.sum(axis=2)).all()
        assert (loads.copies.sum(axis=1) == tokens * GROUPED.per_token).all()
        balanced = BalancedRouting().loads(spread, LAYERS, 4, range(tokens))
        assert (loads.copies.max(axis=1) >= balanced.copies[0, 0]).all()
        assert (loads.active == (loads.tokens > 0).mean(axis=2)).all()


def test_what_a_routing_depends_on() -> None:
    facts = {name: (routing(name).by_layer, routing(name).by_step) for name in ("balanced", *COUNTED)}
    assert facts == {
        "balanced": (False, False),
        "round_robin": (False, False),
        "random": (True, True),
        "zipf": (True, True),
    }
    assert [routing(name).name for name in facts] == list(facts)


@pytest.mark.parametrize("name", DRAWN)
def test_seeds_layers_and_steps_draw_otherwise(name: str) -> None:
    ask = {"experts": PLAIN, "layers": [1], "step": 2, "tokens": range(50)}
    first = choices(name, 0).chosen(**ask)  # type: ignore[arg-type]
    for other in ({"layers": [2]}, {"step": 3}, {"tokens": range(50, 100)}):
        assert (choices(name, 0).chosen(**{**ask, **other}) != first).any()  # type: ignore[arg-type]
    assert (choices(name, 1).chosen(**ask) != first).any()  # type: ignore[arg-type]
    assert (choices(name, -1).chosen(**ask) == choices(name, 2**64 - 1).chosen(**ask)).all()  # type: ignore[arg-type]


# -- uniform


def test_random_counts_have_the_mean_and_variance_of_independent_tokens() -> None:
    """T tokens that each choose k of E: an expert's count is binomial with k/E."""
    tokens, steps = 64, 400
    counts = np.array([chosen("random", PLAIN, tokens, step) for step in range(steps)])
    share = PLAIN.per_token / PLAIN.count
    mean, variance = tokens * share, tokens * share * (1 - share)
    assert counts.mean() == mean, "all copies are there"
    assert np.abs(counts.mean(axis=0) - mean).max() < 5 * np.sqrt(variance / steps)
    assert counts.var(axis=0).mean() == pytest.approx(variance, rel=0.05)


def test_random_tokens_choose_every_set_of_experts_alike() -> None:
    """6 experts, 3 a token: 20 sets, 500 times each but for chance (chi squared below its 99.9th percentile)."""
    experts, tokens = Experts(6, 3, 64), 10_000
    ask = choices("random", 11)
    sets = dict.fromkeys(combinations(range(6), 3), 0)
    for token in range(tokens):
        sets[tuple(np.flatnonzero(ask.chosen(experts, [0], 0, range(token, token + 1))[0]).tolist())] += 1
    expected = tokens / len(sets)
    assert sum((seen - expected) ** 2 / expected for seen in sets.values()) < 43.8


def test_random_groups_are_chosen_alike() -> None:
    counts = chosen("random", GROUPED, 20_000).reshape(GROUPED.groups, -1)
    share = GROUPED.per_token / GROUPED.count
    assert np.abs(counts / 20_000 - share).max() < 5 * np.sqrt(share * (1 - share) / 20_000)


@pytest.mark.parametrize("experts", [PLAIN, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("tokens", [1, 5, 30])
def test_balanced_is_the_average_of_random(experts: Experts, tokens: int) -> None:
    """Copies of a rank to one, and the share of experts that are chosen, in groups or not."""
    spread, layers = ExpertSpread(experts, 4), list(range(500))
    loads = [routing("random").loads(spread, layers, step, range(tokens)) for step in range(8)]
    balanced = BalancedRouting().loads(ExpertSpread(experts, 1), layers, 0, range(tokens))
    assert np.mean([load.active for load in loads]) == pytest.approx(balanced.active[0, 0], rel=0.02)
    copies = np.array([load.copies for load in loads])
    assert copies.sum(axis=2).max() == copies.sum(axis=2).min() == balanced.copies[0, 0]
    assert copies.mean(axis=(0, 1)) == pytest.approx(balanced.copies[0, 0] / 4, rel=0.08)


def test_groups_make_a_rank_wait_longer() -> None:
    """Experts of one group stand on one rank: tokens that choose from few groups come in lumps."""
    free = Experts(64, 6, 64)
    tied = Experts(64, 6, 64, groups=8, groups_per_token=1)
    waits = [np.mean([slowest("random", kind, 8, 32, step=step) for step in range(60)]) for kind in (free, tied)]
    assert waits[1] > 1.3 * waits[0]


# -- Zipf


def test_zipf_of_one_expert_a_token_has_its_frequencies() -> None:
    experts, tokens = Experts(8, 1, 64), 40_000
    counts = np.sort(chosen("zipf", experts, tokens, zipf_exponent=1.2))[::-1]
    weights = np.arange(1, 9) ** -1.2
    assert np.abs(counts / tokens - weights / weights.sum()).max() < 0.01


@pytest.mark.parametrize("exponent", [0.0, 0.7, 2.0])
def test_zipf_without_replacement_is_numpys(exponent: float) -> None:
    tokens = 6000
    counts = np.sort(chosen("zipf", PLAIN, tokens, zipf_exponent=exponent))[::-1]
    expected = np.sort(by_numpy(np.arange(1, 17) ** -exponent, 4, tokens, 1))[::-1]
    assert np.abs(counts - expected).max() < 6 * np.sqrt(tokens / 4)


def test_zipf_has_the_same_favourites_at_every_step_and_others_in_every_layer() -> None:
    ask = choices("zipf", zipf_exponent=1.5)
    hot = [ask.chosen(PLAIN, range(12), step, range(500)).argmax(axis=1).tolist() for step in (0, 1, 99)]
    assert hot[0] == hot[1] == hot[2] == ask.popularity(PLAIN, range(12)).argmax(axis=1).tolist()
    assert len(set(hot[0])) > 4
    assert choices("zipf", 1).popularity(PLAIN, range(12)).argmax(axis=1).tolist() != hot[0]


def test_popularity_makes_the_slowest_rank_slower() -> None:
    tokens = 256
    even, skewed = (slowest(name, PLAIN, 4, tokens) for name in ("random", "zipf"))
    assert tokens * 4 // 4 < even < skewed


# -- draws


def test_numbers_are_those_of_splitmix64() -> None:
    """The published generator's first outputs for seeds 0 and 1234567 (Vigna's splitmix64.c)."""
    zero = np.zeros(1, dtype=np.uint64)
    assert [int(numbers(zero, place)[0]) for place in (0, 1)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert int(numbers(zero + np.uint64(1234567), 0)[0]) == 6457827717110365317
    assert shares(np.array([0, 2**64 - 1], dtype=np.uint64)).tolist() == [0.0, 1 - 2**-53]


@pytest.mark.parametrize("tries", [0.01, 1.0, 20.0])
def test_how_many_numbers_are_tried_first_changes_no_odds(tries: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but one choice drawn from what is left, most of it, or nothing."""
    monkeypatch.setattr(draws, "_TRIES", tries)
    weights = np.array([8.0, 4.0, 2.0, 1.0, 1.0])
    streams = Draws(4).tokens([0], 0, range(20_000))
    picked = without_replacement(weights[None, :], 3, streams)
    assert (np.sort(picked, axis=1)[:, 1:] != np.sort(picked, axis=1)[:, :-1]).all()
    counts, expected = np.bincount(picked.ravel(), minlength=5), by_numpy(weights, 3, 20_000, 2)
    assert np.abs(counts - expected).max() < 500
    assert np.abs(np.bincount(picked[:, 0], minlength=5) / 20_000 - weights / 16).max() < 0.015, "the first by weight"


@pytest.mark.parametrize("together", [1, 7, 10**6])
def test_how_much_is_drawn_at_once_changes_nothing(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = choices("zipf").chosen(GROUPED, LAYERS, 1, range(50))
    monkeypatch.setattr(draws, "_TOGETHER", together)
    assert (choices("zipf").chosen(GROUPED, LAYERS, 1, range(50)) == expected).all()


@pytest.mark.parametrize("lines", [1, 3])
def test_places_by_table_are_those_of_a_search(lines: int) -> None:
    """Also at the very points of the table, at ends, below the first and beyond the last."""
    random = np.random.default_rng(7)
    ends = np.sort(np.concatenate([random.random((40, lines)) + np.arange(lines), 1.0 + np.arange(lines)[None, :]]), 0)
    ends = np.sort(ends.ravel())
    exact = np.arange(lines * draws._GUIDE + 1) / draws._GUIDE
    points = np.concatenate([random.random(20_000) * lines, exact, ends, np.nextafter(ends, 0), [0.0, float(lines)]])
    assert points.size > lines * draws._GUIDE
    for some in (points, points[:50], points.reshape(2, -1) if points.size % 2 == 0 else points[1:].reshape(2, -1)):
        assert (draws._places(ends, some) == np.searchsorted(ends, some, side="right")).all()


# -- round robin


@pytest.mark.parametrize(
    ("stride", "tokens", "counts"),
    [
        (None, 3, [2, 2, 2, 2, 1]),
        (1, 3, [1, 2, 3, 2, 1]),
        (1, 6, [4, 4, 4, 3, 3]),
        (2, 2, [1, 1, 2, 1, 1]),
    ],
)
def test_round_robin_by_hand(stride: int | None, tokens: int, counts: list[int]) -> None:
    """5 experts, 3 a token; with a stride of 1 as in LLMServingSim: token t takes experts t, t + 1, t + 2."""
    assert chosen("round_robin", Experts(5, 3, 64), tokens, expert_stride=stride).tolist() == counts


def test_round_robin_in_groups_by_hand() -> None:
    """3 groups of 2 experts, 2 groups a token: groups 0 and 1, then the last two of 2 and 0, then two of 1 and 2."""
    experts = Experts(6, 2, 64, groups=3, groups_per_token=2)
    assert chosen("round_robin", experts, 1).tolist() == [1, 1, 0, 0, 0, 0]
    assert chosen("round_robin", experts, 2).tolist() == [2, 2, 0, 0, 0, 0]
    assert chosen("round_robin", experts, 3).tolist() == [2, 2, 1, 1, 0, 0]


def test_round_robin_deals_evenly() -> None:
    counts = choices("round_robin").chosen(PLAIN, LAYERS, 12, range(7))
    assert counts.max() - counts.min() == 1
    assert choices("round_robin").popularity(PLAIN, LAYERS).tolist() == [[1.0] * 16] * 3
