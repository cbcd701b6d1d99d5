"""`orrery calibrate`: terms that were planted are found again, and what a recording cannot tell is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foundation.commands import run_command
from foundation.documents import read_yaml
from foundation.errors import UserError
from orchestrator.calibration.fit import Fit, fit
from orchestrator.calibration.identify import precision, unidentified
from orchestrator.calibration.terms import Term, terms
from orchestrator.commands.calibrate import calibrate
from tests.orchestrator.recordings import read, run, server_log

FloatArray = NDArray[np.float64]
MATRIX = np.random.default_rng(1).normal(size=(300, 3)) * 40
NO_HOST = ("--host_step_us", "0", "--host_request_us", "0", "--launch_us", "0")
"""GPT-2 is so small that a host's usual time hides all that its device does."""
REFUSED = ("--terms", "fp=4:32:7", "--jitter", "2", "--iterations", "1")
LINE = Term("link_bw", 50.0, 0.0, 100.0, 1.0, log=False, whole=False)


def call(*words: object) -> int:
    return run_command(lambda: calibrate([str(word) for word in words]))


def calibrated(recorded: Path, settings: Path, result: Path, *words: object) -> dict[str, dict[str, object]]:
    assert call("--recorded", recorded, "--run", settings, "--json", result, "--jitter", 3, *words) == 0
    found = json.loads(result.read_text())
    return {one["name"]: one for one in found["terms"]}


def test_planted_terms_are_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server with less bandwidth and fewer KV blocks than the run that is said to be it; a link plays no part."""
    planted = {"local_bw": 820.0, "num_gpu_blocks_override": 161}
    flags = [word for name, value in planted.items() for word in (f"--{name}", str(value))]
    common = ("--hardware", "RTX4090", "--no_enable_prefix_caching", *NO_HOST)
    truth = server_log(run(tmp_path, "truth", *common, *flags), tmp_path / "server" / "requests.jsonl")
    run(tmp_path, "guess", *common, "--num_gpu_blocks_override", "201")
    output, settings = tmp_path / "fitted.yaml", tmp_path / "guess-settings.json"
    wanted = "num_gpu_blocks_override,local_bw,link_latency"
    found = calibrated(truth, settings, tmp_path / "fit.json", "--terms", wanted, "--output", output, "--iterations", 8)
    for name, value in planted.items():
        assert found[name]["identified"] is True
        assert found[name]["value"] == pytest.approx(value, rel=0.03), name
        assert 0 < float(str(found[name]["standard_error"])) < 0.05 * value
    assert (
        found["link_latency"]["identified"] is False
        and found["link_latency"]["value"] == found["link_latency"]["start"]
    )
    said = capsys.readouterr().out
    assert "link_latency cannot be identified from this recording: it changes no more than noise does" in said
    errors = json.loads((tmp_path / "fit.json").read_text())["errors"]
    worst = [max(abs(one[side]) for one in errors) for side in ("before_percent", "after_percent")]
    assert worst[1] < worst[0] / 5
    lines = read_yaml(output, "fitted lines").value
    assert lines == {name: found[name]["value"] for name in lines} and set(lines) == set(planted)
    again = run(tmp_path, "again", "--settings", str(settings), "--local_bw", str(lines["local_bw"]))
    assert len(read(again)) == 60


def test_a_run_that_is_right_already_stays_as_it_is(tmp_path: Path) -> None:
    truth = server_log(run(tmp_path, "right", *NO_HOST), tmp_path / "server" / "requests.jsonl")
    found = calibrated(truth, tmp_path / "right-settings.json", tmp_path / "fit.json", "--terms", "local_bw")
    assert found["local_bw"]["value"] == found["local_bw"]["start"] and found["local_bw"]["identified"] is True


def line(values: FloatArray) -> FloatArray:
    return MATRIX[:, : len(values)] @ (values - np.array([0.7, 0.2, 0.5])[: len(values)])


def test_what_is_linear_is_fitted_in_one_step() -> None:
    found = fit(line, np.full(3, 0.01), np.full(3, 0.001), np.array([0.5, 0.5, 0.5]), most=8)
    assert found.shares == pytest.approx([0.7, 0.2, 0.5]) and found.iterations <= 8


def test_what_is_not_linear_is_fitted_within_bounds() -> None:
    def model(values: FloatArray) -> FloatArray:
        return MATRIX @ (np.exp(3 * values) - np.exp([2.1, 0.6, 4.5]))

    found = fit(model, np.full(3, 1e-3), np.full(3, 1e-4), np.array([0.5, 0.5, 0.5]), most=30)
    assert found.shares[2] == 1.0, "what it wants is beyond the bound"
    assert ((found.shares >= 0) & (found.shares <= 1)).all()


def test_terms_that_stand_in_for_each_other_are_named() -> None:
    """The third column is the first and a little: their sum is known, neither of them is."""
    made = MATRIX.copy()
    made[:, 2] = made[:, 0] + 0.01 * made[:, 1]
    found = Fit(np.full(3, 0.5), np.ones(300), made, 1)
    lost = unidentified(found, precision(found, []), ["base", "sequences", "attention"])
    assert lost is not None and lost.place in (0, 2)
    assert "cannot be told apart from " in lost.why and "sequences" not in lost.why


def test_a_term_without_effect_and_one_with_too_little_are_named() -> None:
    made = MATRIX.copy()
    made[:, 1] *= 1e-3
    found = Fit(np.full(3, 0.5), np.ones(300), made, 1)
    lost = unidentified(found, precision(found, []), ["a", "b", "c"])
    assert lost is not None and lost.place == 1 and "than noise" in lost.why
    made[:, 1] = MATRIX[:, 1] / 20
    noisy = Fit(np.full(3, 0.5), 30 * np.ones(300), made, 1)
    lost = unidentified(noisy, precision(noisy, []), ["a", "b", "c"])
    assert lost is not None and lost.place == 1 and "standard error" in lost.why


def test_standard_errors_are_those_of_least_squares_and_of_the_noise() -> None:
    draws = np.random.default_rng(2).normal(size=(300, 40))
    found = Fit(np.full(3, 0.5), draws[:, 0], MATRIX, 1)
    known = precision(found, [draws[:, column] for column in range(1, 40)])
    textbook = np.sqrt(np.diag(np.linalg.inv(MATRIX.T @ MATRIX)))
    assert known.errors == pytest.approx(np.sqrt(2) * textbook, rel=0.35), "a difference of two runs"
    together = [MATRIX.sum(axis=1) * one for one in (-0.1, 0.0, 0.1)]
    assert (precision(found, together).errors > 5 * textbook).all(), "requests of a run are early or late together"
    assert known.correlations.diagonal() == pytest.approx([1, 1, 1]) and known.condition < 2


def test_nothing_is_known_of_what_the_recording_lacks(tmp_path: Path) -> None:
    """All terms may be lost; the run stays what it was."""
    truth = server_log(run(tmp_path, "right"), tmp_path / "server" / "requests.jsonl")
    words = ("--terms", "link_bw,remote_bw", "--output", tmp_path / "none.yaml")
    found = calibrated(truth, tmp_path / "right-settings.json", tmp_path / "fit.json", *words)
    assert [one["identified"] for one in found.values()] == [False] * 2
    assert all(text.startswith("#") for text in (tmp_path / "none.yaml").read_text().splitlines())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("local_bandwidth", '--terms: "local_bandwidth" is no number among the settings; did you mean local_bw'),
        ("model_name", '--terms: "model_name" is no number among the settings'),
        ("max_num_seqs", "--terms: what is plausible of max_num_seqs is not known; give max_num_seqs=LOW:HIGH"),
        ("local_bw=9", '--terms: "local_bw=9" is not NAME=LOW:HIGH or NAME=LOW:HIGH:STEP'),
        ("local_bw=9:5", '--terms: "local_bw=9:5" is no range with steps in it'),
        ("local_bw=1:2:3", '--terms: "local_bw=1:2:3" is no range with steps in it'),
        ("local_bw=1:2", "--terms: local_bw is 1000, not within 1 and 2; widen the range"),
        ("num_gpu_blocks_override", "--terms: the run has no num_gpu_blocks_override"),
        ("client_timeout=1:9", "--terms: the run has no client_timeout; give the run one"),
        ("local_bw,local_bw", "--terms: local_bw twice; give each once"),
    ],
)
def test_terms_that_cannot_be_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        terms(text.split(","), {"local_bw": 1000.0})
    assert str(raised.value).startswith(said)


def test_host_times_may_start_at_nothing() -> None:
    [one] = terms([], {"host_step_us": 0.0, "link_latency": 0.0})
    assert one.name == "host_step_us" and (one.start, one.low, one.value(0.5)) == (0.0, 0.0, 10_000.0)


def test_a_term_goes_along_its_range() -> None:
    [known] = terms(["local_bw"], {"local_bw": 1000.0})
    assert known.log and known.value(known.share(730.0)) == pytest.approx(730.0)
    assert known.value(1.0 + 1) == known.high and known.value(0.0) == known.low
    assert known.value(0.5 + known.step_share(0.5)) - known.value(0.5) == pytest.approx(20.0)
    assert known.step_share(1.0) < 0, "from the bound it goes down"
    assert LINE.error(0.3, 0.01) == pytest.approx(1.0)
    [counted] = terms(["max_num_seqs=8:64"], {"max_num_seqs": 32.0})
    assert counted.whole and counted.given(0.5) == 36 and isinstance(counted.given(0.5), int) and counted.step == 3


def test_a_planted_host_time_is_found(tmp_path: Path) -> None:
    """Decodes of GPT-2 take less than the host: what a step takes is the host's time, and operators hardly show."""
    truth = server_log(run(tmp_path, "truth", "--host_step_us", "6500"), tmp_path / "server" / "requests.jsonl")
    run(tmp_path, "guess")
    found = calibrated(
        truth, tmp_path / "guess-settings.json", tmp_path / "fit.json", "--terms", "host_step_us,link_bw"
    )
    assert found["host_step_us"]["start"] == 4000.0
    assert found["host_step_us"]["value"] == pytest.approx(6500, rel=0.02)
    assert found["host_step_us"]["identified"] is True and found["link_bw"]["identified"] is False


def test_a_value_that_no_run_can_have_is_gone_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below 52 blocks the longest request never fits, and a run with fewer is refused; the planted 60 are found."""
    common = ("--no_enable_prefix_caching", *NO_HOST)
    truth = server_log(
        run(tmp_path, "truth", *common, "--num_gpu_blocks_override", "60"), tmp_path / "server" / "requests.jsonl"
    )
    run(tmp_path, "guess", *common, "--num_gpu_blocks_override", "72")
    wanted = "num_gpu_blocks_override=40:120:2"
    found = calibrated(truth, tmp_path / "guess-settings.json", tmp_path / "fit.json", "--terms", wanted)
    assert abs(float(str(found["num_gpu_blocks_override"]["value"])) - 60) <= 2
    assert call("--recorded", truth, "--run", tmp_path / "guess-settings.json", *REFUSED) == 0
    assert "cannot be: " in capsys.readouterr().err
