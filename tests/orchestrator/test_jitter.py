"""Runs that are disturbed: the same draws whatever way a run is simulated, and none where nothing is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foundation.draws import normal
from foundation.errors import UserError
from orchestrator import RunSpec
from orchestrator.engine.batch import Batch
from orchestrator.moved_arrivals import moved
from orchestrator.pricing.interface import Cost
from orchestrator.pricing.jittered import JitteredPricing
from orchestrator.request_source import RequestSource
from orchestrator.request_table import RequestTable, SessionColumns
from orchestrator.requests.request import Request
from orchestrator.settings.noise import NoiseSettings
from tests.orchestrator.recordings import read, run

STEPS = ("--jitter_steps", "2", "--jitter_seed", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jitter")


@pytest.mark.parametrize(
    "way",
    [
        "",
        "--npu_num 2 --npu_group 2",
        "--instances 2",
        "--scheduling orca",
        "--scheduling sglang",
        "--async_scheduling",
    ],
)
def test_steps_priced_alone_or_together_have_the_same_noise(folder: Path, way: str) -> None:
    flags = (*STEPS, *way.split())
    alone = run(folder, "alone", *flags, "--macro_steps", "1")
    together = run(folder, "together", *flags)
    assert alone.read_bytes() == together.read_bytes()
    still = run(folder, "still", *way.split())
    assert still.read_bytes() != together.read_bytes()


def test_no_jitter_is_the_same_run_and_is_not_recorded(folder: Path) -> None:
    still = run(folder, "still")
    none = run(folder, "none", "--jitter_steps", "0", "--jitter_arrivals_ms", "0")
    assert still.read_bytes() == none.read_bytes()
    assert '"jitter_' not in (folder / "still-settings.json").read_text()


def test_a_disturbed_run_repeats_itself_from_its_record(folder: Path) -> None:
    first = run(folder, "first", *STEPS, "--jitter_arrivals_ms", "5")
    again = run(folder, "again", "--settings", str(folder / "first-settings.json"))
    assert first.read_bytes() == again.read_bytes()
    other = run(folder, "other", "--jitter_steps", "2", "--jitter_seed", "4", "--jitter_arrivals_ms", "5")
    assert other.read_bytes() != first.read_bytes()


def test_arrivals_move_by_milliseconds_each_by_its_own_draw(folder: Path) -> None:
    still, shaken = read(run(folder, "still")), read(run(folder, "shaken", "--jitter_arrivals_ms", "5"))
    order = np.argsort(still.position), np.argsort(shaken.position)
    by = shaken.moments["arrival"][order[1]] - still.moments["arrival"][order[0]]
    assert len(set(by.tolist())) == len(by) and 3e6 < by.std() < 7e6 and abs(by.mean()) < 2e6


def test_a_session_moves_as_one_and_never_before_0() -> None:
    table = RequestTable.of([Request(place, arrival, 5, 5) for place, arrival in enumerate((0, 0, 900, 900, 900))])
    sessions = SessionColumns(np.array([1, 1, 2, 2, 0]), np.zeros(5, dtype=np.int64))
    source = RequestSource("x", RequestTable(*_columns(table), sessions=sessions), 0, 5)
    found = moved(source, NoiseSettings(jitter_arrivals_ms=1e-3, jitter_seed=1)).table
    assert found.sessions is not None
    by_number = {number: set(found.arrival_ns[found.sessions.number == number].tolist()) for number in (0, 1, 2)}
    assert all(len(arrivals) == 1 for arrivals in by_number.values()) and by_number[2] != by_number[0]
    assert found.arrival_ns.min() >= 0 and (np.diff(found.arrival_ns) >= 0).all()


class Flat:
    """A pricing: every step takes 1 ms on each of two stages, of two classes of work."""

    stages, max_steps, classes = 2, 512, ("a", "b")

    def price(self, wave: list[Batch]) -> Cost:
        steps = wave[0].steps
        finish = np.tile(np.array([1_000_000, 2_000_000]), (len(wave), steps, 1))
        return Cost(finish, np.tile(np.array([1_500_000, 500_000]), (len(wave), steps, 1)))


def decodes(steps: int, context: int = 100) -> Batch:
    requests = [Request(place, 0, 50, 500) for place in range(3)]
    batch = Batch.of(0, requests, [1, 1, 1], [context, context + 9, context], [1, 1, 1])
    return batch.again(batch.context_tokens, steps)


def test_the_factor_is_that_of_the_step_whatever_it_is_priced_with() -> None:
    pricing = JitteredPricing(Flat(), 0.02, seed=5)
    together = pricing.price([decodes(400)])
    alone = [pricing.price([decodes(1, 100 + step)]) for step in range(400)]
    assert np.array_equal(together.finish_ns[0], np.stack([one.finish_ns[0, 0] for one in alone]))
    assert np.array_equal(together.busy_ns[0], np.stack([one.busy_ns[0, 0] for one in alone]))
    shares = together.finish_ns[0, :, 1] / 2e6 - 1
    assert abs(shares.mean()) < 0.005 and 0.017 < shares.std() < 0.023
    assert (together.busy_ns.sum(axis=2) == together.finish_ns[:, :, -1]).all(), "classes add up as before"
    assert not np.array_equal(together.finish_ns, JitteredPricing(Flat(), 0.02, seed=6).price([decodes(400)]).finish_ns)


def test_no_step_takes_no_time() -> None:
    assert JitteredPricing(Flat(), 0.5, seed=1).price([decodes(512)]).finish_ns.min() >= 10_000


def test_normal_draws_are_normal() -> None:
    drawn = np.array([normal(1, "test", place) for place in range(4000)])
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.03 and abs((drawn > 1.96).mean() - 0.025) < 0.008


def test_a_seed_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="jitter_seed: nothing is disturbed"):
        RunSpec.of(jitter_seed=3)


def _columns(table: RequestTable) -> tuple[np.ndarray, ...]:
    return table.id, table.prompt_tokens, table.output_tokens, table.arrival_ns, table.line
