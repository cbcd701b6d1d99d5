"""Generated workloads: rates and moments are those asked for, and n requests are the first n of any more."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from generated import SIGMAS, client, made, mixed
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foundation.errors import UserError
from orchestrator.request_table import RequestTable
from orchestrator.requests.formats import read_requests
from orchestrator.requests.generators.arrivals import ArrivalPlace
from orchestrator.requests.generators.arrivals.trace import Trace
from orchestrator.requests.generators.clocks import summed
from orchestrator.requests.generators.generating import Generator
from orchestrator.requests.generators.streams import Stream

MANY = 40_000
FloatArray = NDArray[np.float64]


def gaps_s(flags: str, count: int = MANY) -> FloatArray:
    return np.diff(made(flags, count).arrival_ns) / 1e9


def near(found: float, wanted: float, deviation: float, count: int) -> bool:
    """Whether a mean of `count` draws of a standard deviation is as near to `wanted` as it should be."""
    return abs(found - wanted) <= SIGMAS * deviation / math.sqrt(count) + 1e-9


@pytest.mark.parametrize(
    ("flags", "cv", "kurtosis"),
    [
        ("--arrivals poisson", 1.0, 9.0),
        ("--burstiness 0.25", 2.0, 27.0),
        ("--burstiness 4", 0.5, 4.5),
        ("--burstiness 1", 1.0, 9.0),
        ("--weibull_shape 2", math.sqrt(4 / math.pi - 1), 3.245),
        ("--weibull_shape 0.5", math.sqrt(5.0), 87.72),
    ],
)
@pytest.mark.parametrize("rate", [0.2, 10, 3000])
def test_renewal_processes_have_their_rate_and_variation(flags: str, cv: float, kurtosis: float, rate: float) -> None:
    """A mean's deviation is sigma over the root of n, a variance's is sigma^2 times the root of (kurtosis - 1) / n."""
    found = gaps_s(f"{flags} --request_rate {rate}") * rate
    assert near(found.mean(), 1.0, cv, len(found))
    assert near(((found - 1.0) ** 2).mean(), cv * cv, cv * cv * math.sqrt(kurtosis - 1), len(found))


def test_equal_gaps_are_equal_and_keep_the_rate() -> None:
    assert set(np.diff(made("--arrivals static --request_rate 8", 100).arrival_ns)) == {125_000_000}
    assert made("--arrivals static --request_rate 3", 3001).arrival_ns[-1] == 1000 * 10**9, "no rounding adds up"
    assert set(np.diff(made("--burstiness inf --request_rate 8", 100).arrival_ns)) == {125_000_000}


def test_an_infinite_rate_sends_all_at_once() -> None:
    assert not made("--request_rate inf", 1000).arrival_ns.any()
    assert not made("--request_rate inf --burstiness 2", 10).arrival_ns.any()


def test_a_poisson_process_counts_as_one() -> None:
    """Counts in windows have their mean as variance, and those of neighbours have nothing to do with one another."""
    arrivals = made("--request_rate 20", MANY).arrival_ns
    counts = np.bincount(arrivals // 10**9)[:-1]
    assert near(counts.mean(), 20, math.sqrt(20), len(counts))
    assert near(counts.var() / 20, 1.0, math.sqrt(2 + 1 / 20), len(counts))
    product = (counts[1:] - 20.0) * (counts[:-1] - 20.0) / 20.0
    assert near(product.mean(), 0.0, 1.0, len(product))


@pytest.mark.parametrize(("kind", "variance"), [("exponential", 2.0), ("fixed", 0.0)])
def test_an_interrupted_process_has_its_rate_and_its_silences(kind: str, variance: float) -> None:
    """Per cycle of on and off 50 requests come. With fixed times nothing comes in the second part of each cycle."""
    flags = f"--on_time 2 --off_time 3 --on_off_times {kind} --request_rate 10"
    arrivals = made(flags, MANY).arrival_ns / 1e9
    cycles = MANY / 50
    # Requests in a cycle vary by 50 and by on times; cycles vary in length by on and off times.
    assert near(arrivals[-1] / MANY, 0.1, 0.1 * math.sqrt(1 / 50 + variance), cycles)  # type: ignore[arg-type]
    if kind == "fixed":
        assert ((arrivals % 5) <= 2).all()
    else:
        silences = np.diff(arrivals)
        assert (silences > 1.0).sum() > 0.5 * cycles and near(
            silences[silences > 1.0].mean(), 4.0, 3.0, int(cycles / 2)
        )


def test_a_swinging_rate_follows_its_sine() -> None:
    flags = "--diurnal_period 100 --diurnal_amplitude 0.8 --diurnal_phase 0.25 --request_rate 40"
    arrivals = made(flags, MANY).arrival_ns / 1e9
    whole = arrivals[arrivals < 100 * (arrivals[-1] // 100)]
    swings = arrivals[-1] // 100
    assert near(len(whole) / swings / 100, 40, math.sqrt(40 / 100), swings)
    for part in range(10):
        turns = [0.25 + (part + step / 100) / 10 for step in range(100)]
        wanted = sum(40 * (1 + 0.8 * math.sin(2 * math.pi * turn)) for turn in turns) / 100 * 10 * swings
        counted = ((whole % 100) // 10 == part).sum()
        assert abs(counted - wanted) < SIGMAS * math.sqrt(wanted) + 0.01 * wanted


@pytest.mark.parametrize(("strategy", "middle"), [("linear", 55.0), ("exponential", math.sqrt(1000))])
def test_a_ramp_goes_from_one_rate_to_the_other(strategy: str, middle: float) -> None:
    flags = f"--ramp_up_strategy {strategy} --ramp_up_start_rps 10 --ramp_up_end_rps 100"
    gaps = gaps_s(flags)
    for begin, rate in ((0, 10.0), (MANY // 2 - 500, middle), (MANY - 1001, 100.0)):
        assert abs(gaps[begin : begin + 1000].mean() * rate - 1) < SIGMAS / math.sqrt(1000) + 0.1
    exact = gaps_s(f"{flags} --burstiness inf", 101)
    progress = np.arange(100) / 100
    rates = 10 + 90 * progress if strategy == "linear" else 10 * 10**progress
    assert exact == pytest.approx(1 / rates, abs=1e-8)


LENGTHS = {
    "--input_tokens 77": (77.0, 0.0, 77, 77),
    "--random_input_len 100 --random_range_ratio 0.25": (100.0, math.sqrt((51**2 - 1) / 12), 75, 125),
    "--input_lengths uniform --input_min 3 --input_max 20": (11.5, math.sqrt((18**2 - 1) / 12), 3, 20),
    "--input_std 30 --input_mean 400": (400.0, math.sqrt(900 + 1 / 12), 200, 600),
    "--input_mean 5000 --input_cv 0.5": (5000.0, 2500.0, 100, 10**6),
    "--input_lengths zipf --input_min 5 --input_max 7 --input_theta 1": (62 / 11, math.sqrt(72) / 11, 5, 7),
}


@pytest.mark.parametrize("flags", LENGTHS)
def test_lengths_have_their_mean_deviation_and_limits(flags: str) -> None:
    mean, deviation, low, high = LENGTHS[flags]
    tokens = made(flags, MANY).prompt_tokens.astype(np.float64)
    assert low <= tokens.min() and tokens.max() <= high
    assert near(tokens.mean(), mean, deviation, MANY)
    assert tokens.std() == pytest.approx(deviation, rel=0.05)


def test_lognormal_limits_are_limits_and_the_median_is_the_middle() -> None:
    for profile, low, high in (("sharegpt-like", (4, 4), (1024, 1024)), ("alpaca-like", (4, 2), (512, 512))):
        table = made(f"--profile {profile}", MANY)
        for tokens, least, most in zip((table.prompt_tokens, table.output_tokens), low, high, strict=True):
            assert least <= tokens.min() and tokens.max() <= most
    tokens = made("--input_mean 1000 --input_cv 1", MANY).prompt_tokens
    assert np.median(tokens) == pytest.approx(1000 / math.sqrt(2), rel=0.03)


def test_answers_are_a_part_of_a_total() -> None:
    table = made("--lengths total --total_min 30 --total_max 90 --prefill_to_decode_ratio 9", 5000)
    total = table.prompt_tokens + table.output_tokens
    assert total.min() == 30 and total.max() == 90
    assert (table.output_tokens == np.ceil(total / 10)).all(), "Vidur's rule"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.tsv"
    rows = [(10 * one + 1, one + 1, 1000 + 10**9 * one * one) for one in range(1, 11)]
    path.write_text("".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))
    return path


def test_rows_of_a_file_are_drawn_shuffled_or_taken_in_order(trace: Path) -> None:
    rows = {(10 * one + 1, one + 1) for one in range(1, 11)}

    def pairs(flags: str, count: int) -> list[tuple[int, int]]:
        table = made(f"--lengths_file {trace} {flags}", count)
        return list(zip(table.prompt_tokens.tolist(), table.output_tokens.tolist(), strict=True))

    drawn = pairs("", 20_000)
    assert set(drawn) == rows
    assert all(abs(drawn.count(one) - 2000) < SIGMAS * math.sqrt(1800) for one in rows)
    shuffled = pairs("--lengths_order shuffled", 35)
    assert [set(shuffled[at : at + 10]) for at in (0, 10, 20)] == [rows] * 3 and shuffled[:10] != shuffled[10:20]
    assert pairs("--lengths_order file", 12) == [*sorted(rows), *sorted(rows)[:2]]
    scaled = pairs("--lengths_order file --input_scale 0.5 --output_scale 3 --max_request_tokens 60", 10)
    assert scaled[0] == (5, 6) and scaled[-1] == (60 - 33, 33)


def test_a_traces_times_are_taken_and_rescaled(trace: Path) -> None:
    own = [10**9 * (one * one - 1) for one in range(1, 11)]
    assert made(f"--arrivals_file {trace}", 10).arrival_ns.tolist() == own
    assert made(f"--arrivals_file {trace} --rate_scale 2", 10).arrival_ns.tolist() == [one // 2 for one in own]
    scaled = made(f"--arrivals_file {trace} --request_rate 4", 10).arrival_ns
    assert scaled[-1] == 9 / 4 * 1e9, "nine gaps, four a second"
    again = made(f"--arrivals_file {trace}", 20).arrival_ns
    assert again[10:].tolist() == [one + 110 * 10**9 for one in own], "a mean gap (11 s) after the last"


def test_times_that_no_clock_holds_are_refused(tmp_path: Path) -> None:
    late = tmp_path / "late.tsv"
    late.write_text(f"1\t1\t0\n1\t1\t{2**61}\n")
    with pytest.raises(UserError, match="spread over more than 146 years"):
        made(f"--arrivals_file {late} --rate_scale 0.001", 2)
    with pytest.raises(UserError, match="spread over more than 146 years"):
        next(summed(lambda size: np.full(size, 2**60), at_zero=True))
    place = ArrivalPlace(1e-9, 1.0, 10, True, None, lambda purpose: Stream("0", purpose))
    with pytest.raises(UserError, match="spread over more than 146 years"):
        for _ in zip(range(64), client("--arrivals static").process.times(place), strict=False):
            pass
    assert isinstance(client(f"--arrivals_file {late}").process, Trace)


FLAGS = st.sampled_from(
    [
        "",
        "--burstiness 0.3",
        "--weibull_shape 0.7",
        "--arrivals static",
        "--request_rate inf",
        "--on_time 1 --off_time 2",
        "--diurnal_period 20",
        "--prefix_len 20 --prefix_groups 3 --prefix_depth 2 --prefix_share 0.5",
        "--sessions multi-turn --max_history 300",
        "--tool_calls 2",
        "--prefill_to_decode_ratio 3",
    ]
)


def same(one: RequestTable, other: RequestTable) -> bool:
    columns = [(table.arrival_ns, table.prompt_tokens, table.output_tokens, table.id) for table in (one, other)]
    alike = all(bool((a == b).all()) for a, b in zip(*columns, strict=True))
    if one.sessions is not None and other.sessions is not None:
        alike = alike and bool((one.sessions.number == other.sessions.number).all())
    return alike


@given(st.lists(FLAGS, min_size=1, max_size=4), st.integers(0, 10**6), st.integers(1, 200), st.integers(0, 9000))
@settings(max_examples=40, deadline=None)
def test_the_first_requests_do_not_depend_on_how_many_there_are(
    flags: list[str], seed: int, count: int, more: int
) -> None:
    """The seed is all: a longer workload begins with a shorter one, and blocks are told from nothing else."""
    few, many = mixed(flags, count, seed), mixed(flags, count + more, seed)
    assert len(few) == count and same(few, many.at(np.arange(count)))
    assert (np.diff(few.arrival_ns) >= 0).all()
    blocks = list(Generator(tuple(map(client, flags)), seed, count + more).tables())
    assert np.concatenate([one.arrival_ns for one in blocks]).tolist() == many.arrival_ns.tolist()
    assert np.concatenate([one.id for one in blocks]).tolist() == list(range(count + more))
    if many.sessions is not None:
        numbers = [one.sessions.number for one in blocks if one.sessions is not None]
        assert np.concatenate(numbers).tolist() == many.sessions.number.tolist()


def test_seeds_differ() -> None:
    assert not same(made("", 100, seed=1), made("", 100, seed=2))


@given(st.floats(0.01, 100), st.floats(0.05, 200), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_rate_and_burstiness_come_out(rate: float, burstiness: float, seed: int) -> None:
    found = np.diff(made(f"--burstiness {burstiness} --request_rate {rate}", 4000, seed).arrival_ns) / 1e9 * rate
    assert abs(found.mean() - 1) < 6 / math.sqrt(burstiness * len(found)) + 1e-4, "no wider than 6 deviations"


def test_shares_divide_the_rate_and_priorities_go_with_clients() -> None:
    flags = [
        "--share 3 --request_rate 20 --priority -1 --input_tokens 10",
        "--share 1 --request_rate 20 --burstiness 0.5 --input_tokens 20",
    ]
    table = mixed(flags, MANY)
    assert table.priority is not None
    first = table.prompt_tokens == 10
    assert ((table.priority == -1) == first).all() and {one.priority for one in table.at(np.arange(50))} == {-1, 0}
    duration = table.arrival_ns[-1] / 1e9
    for chosen, rate, spread in ((first, 15, 1.0), (~first, 5, 2.0)):
        count = int(chosen.sum())
        assert abs(count / duration / rate - 1) < SIGMAS * math.sqrt(spread / count)
    assert table.arrival_ns[0] > 0, "nobody begins at 0"


def test_clients_at_one_time_take_turns_by_their_shares() -> None:
    flags = [f"--share {share} --request_rate inf --input_tokens {share}" for share in (3, 1)]
    assert np.bincount(mixed(flags, 4000).prompt_tokens).tolist() == [0, 1000, 0, 3000]
    assert mixed(flags, 8).prompt_tokens.tolist() == [3, 3, 3, 1, 3, 3, 3, 1]


def test_a_prefix_tree_is_shared_level_by_level() -> None:
    table = made("--prefix_len 11 --prefix_groups 2 --prefix_depth 3 --prefix_share 0.75 --input_tokens 5", 4000)
    assert table.prompt_ids is not None
    ids = [tuple(table.prompt_ids.row(at) or ()) for at in range(1000)]
    with_prefix = [one for one in ids if len(one) == 16]
    assert {len(one) for one in ids} == {5, 16}
    assert table.prompt_tokens[:1000].tolist() == [len(one) for one in ids]
    share = (table.prompt_tokens == 16).mean()
    assert near(float(share), 0.75, math.sqrt(0.75 * 0.25), 4000)
    assert [len({one[:length] for one in with_prefix}) for length in (3, 7, 11)] == [2, 4, 8]
    assert len({one[11:] for one in with_prefix}) == len(with_prefix), "what follows is each one's own"


def test_skewed_prefixes_follow_zipfs_law() -> None:
    table = made("--prefix_len 4 --prefix_groups 3 --prefix_skew 1 --input_tokens 1", 6000)
    assert table.prompt_ids is not None
    counts: dict[object, int] = {}
    for at in range(6000):
        prefix = tuple(table.prompt_ids.row(at) or ())[:4]
        counts[prefix] = counts.get(prefix, 0) + 1
    for found, weight in zip(sorted(counts.values(), reverse=True), (6 / 11, 3 / 11, 2 / 11), strict=True):
        assert near(found / 6000, weight, math.sqrt(weight * (1 - weight)), 6000)


def test_a_conversation_repeats_what_was_said() -> None:
    table = made("--sessions multi-turn --session_turns 4 --prefix_len 9", 400)
    sessions, prompts, answers = table.sessions, table.prompt_ids, table.output_ids
    assert sessions is not None and prompts is not None and answers is not None
    follows = np.flatnonzero(~sessions.opens())
    assert len(follows) > 100
    for at in follows.tolist():
        said = [*(prompts.row(at - 1) or ()), *(answers.row(at - 1) or ())]
        now = prompts.row(at) or ()
        assert list(now)[: len(said)] == said and len(now) == table.prompt_tokens[at] > len(said)
        assert len(answers.row(at) or ()) == table.output_tokens[at]


def test_history_is_cut_at_whole_turns() -> None:
    table = made("--sessions multi-turn --session_turns 6 --session_counts fixed --max_history 25 "
                 "--input_tokens 4 --output_tokens 6 --prefix_len 3", 12)  # fmt: skip
    assert table.prompt_tokens.tolist() == [7, 17, 27, 27, 27, 27] * 2, "two turns of ten tokens at most"
    assert table.prompt_ids is not None and table.output_ids is not None
    last = list(table.prompt_ids.row(5) or ())
    fourth = list(table.prompt_ids.row(3) or ())
    assert last[:3] == fourth[:3] and last[3:7] == fourth[-4:], "the prefix, then the fourth turn"
    none = made("--sessions multi-turn --session_turns 3 --session_counts fixed --max_history 0 --input_tokens 4", 3)
    assert none.prompt_tokens.tolist() == [4, 4, 4]


def test_turns_pauses_and_tool_calls_have_their_means() -> None:
    talk = made("--sessions multi-turn --session_turns 5 --pause_time 3", MANY)
    assert talk.sessions is not None
    turns = np.bincount(talk.sessions.number)[1:-1]
    assert near(turns.mean(), 5, math.sqrt(20), len(turns)) and turns.min() == 1
    pauses = talk.sessions.pause_ns[np.flatnonzero(~talk.sessions.opens()) - 1] / 1e9
    assert near(pauses.mean(), 3, 3, len(pauses))
    flags = "--tool_calls 3 --session_turns 2 --tool_time 0.5 --pause_time 40 --session_times fixed --tool_tokens 50"
    agent = made(f"{flags} --input_tokens 1000 --output_tokens 1 --max_history 0", MANY)
    assert agent.sessions is not None
    requests = np.bincount(agent.sessions.number)[1:-1]
    assert near(requests.mean(), 8, math.sqrt(2 * 12 + 2 * 16), len(requests))
    asked = agent.prompt_tokens == 1000
    tools = agent.prompt_tokens[~asked]
    assert near(tools.mean(), 50, math.sqrt(50 * 49), len(tools))
    waits = agent.sessions.pause_ns[:-1][~agent.sessions.opens()[1:]]
    assert set(waits.tolist()) == {500_000_000, 40_000_000_000}
    assert ((waits == 40_000_000_000) == asked[1:][~agent.sessions.opens()[1:]]).all(), "a user's turn follows a pause"


def test_a_duration_ends_a_workload() -> None:
    whole = made("--sessions multi-turn", 500)
    until = int(whole.arrival_ns[300])
    cut = Generator((client("--sessions multi-turn"),), 3, 10**9, until).table()
    assert same(cut, whole.at(whole.arrival_ns < until)) and len(cut) < 301
    with pytest.raises(UserError, match="no request arrives so early"):
        list(Generator((client(""),), 3, 10, 0).tables())


def test_what_shares_nothing_has_no_ids() -> None:
    assert made("", 5).prompt_ids is None and made("--burstiness 2", 5).sessions is None
    mixture = mixed(["--share 1 --prefix_len 5", "--share 1"], 50)
    assert mixture.prompt_ids is not None
    known = [mixture.prompt_ids.row(at) is not None for at in range(50)]
    assert any(known) and not all(known)


def test_a_dataset_gets_other_times(trace: Path) -> None:
    requests = read_requests(trace).requests
    moved = requests.at(np.arange(len(requests))[::-1]).arriving(np.arange(10))
    assert moved.prompt_tokens.tolist() == requests.prompt_tokens[::-1].tolist()
    assert moved.arrival_ns.tolist() == list(range(9, -1, -1)), "in the order in which they came before"
