"""The estimator: formulas worked by hand, exact in closed form, and what follows from them; the registries."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.estimating import simulate
from orchestrator.estimating.entries import known
from orchestrator.estimating.formulas import Formula
from orchestrator.estimating.registries import ModelEntry, PtpsEntry, Registries
from orchestrator.estimating.regression import fit

S_MW, S_KVC, BW, PTPS = 13.3e9, 2 * 32 * 4096 * 2, 2.0e12, 10_000.0
"""About OPT-6.7B in 16 bits; 32 layers of keys and values of 4096 elements."""
OPT = Formula(S_MW, S_KVC, BW, PTPS)
exact = st.fractions(min_value=Fraction(1, 1000), max_value=10**6, max_denominator=1000)
formulas = st.builds(Formula, exact, exact, exact, exact)
batches, prompts, responses = st.integers(1, 256), st.integers(1, 4096), st.integers(0, 300)
REGISTRY = {
    "gpu": {"A100": {"memory_bandwidth_gb_s": 2000}},
    "model": {"opt": {"weight_bytes": 13_300_000_000, "kv_bytes_per_token": 524_288}},
    "ptps": {"opt": {"A100": {"ptps": 10_000}}},
}


def registry(folder: Path, **changed: object) -> Registries:
    """Write the registry, some of its files with other content, and return it."""
    for name, content in {**REGISTRY, **changed}.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return Registries(folder)


# --- the formulas


def test_worked_by_hand() -> None:
    """C, beta and alpha of a model like OPT-6.7B at 2 TB/s; a batch of 8 takes 1.34 times as long as one sequence."""
    assert OPT.weight_bytes / OPT.bandwidth == pytest.approx(6.65e-3, rel=1e-12)
    one, eight = OPT.token_phase(1, 1024, 512), OPT.token_phase(8, 1024, 512)
    assert one == pytest.approx(1.31072e-7 * 512**2 + (1024.5 * 524_288 / 2e12 + 0.00665) * 512, rel=1e-12)
    assert (round(one, 4), round(eight, 4)) == (3.5767, 4.7797)
    assert (round(eight / one, 2), round(8 * one / eight, 1)) == (1.34, 6.0)
    assert OPT.token(1, 1024, 1) == pytest.approx((13.3e9 + 1025 * 524_288) / 2e12, rel=1e-15)
    assert OPT.prompt_phase(8, 1024) == 0.8192 and OPT.total(8, 1024, 512) == pytest.approx(0.8192 + eight, rel=1e-15)


@given(formulas, batches, prompts, responses)
def test_the_closed_form_is_the_sum_of_the_steps(formula: Formula, batch: int, prompt: int, response: int) -> None:
    """In fractions, which do not round."""
    latencys = formula.latencys(batch, prompt, response)
    assert len(latencys) == response + 1 and all(isinstance(one, Fraction) for one in latencys)
    assert latencys[0] == Fraction(batch * prompt) / formula.ptps
    assert sum(latencys[1:]) == formula.token_phase(batch, prompt, response)
    assert sum(latencys) == formula.total(batch, prompt, response)


@given(formulas, batches, prompts, st.integers(1, 300))
def test_a_step_reads_the_weights_and_the_cache_of_all(formula: Formula, batch: int, prompt: int, index: int) -> None:
    """Written out another way: the bytes of every sequence's tokens, one sequence after another."""
    read = formula.weight_bytes + sum((prompt + index) * formula.kv_bytes_per_token for _ in range(batch))
    assert formula.token(batch, prompt, index) * formula.bandwidth == read


@given(formulas, st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_the_prompt_phase_knows_only_how_many_tokens_there_are(formula: Formula, a: int, b: int, c: int) -> None:
    """Whatever the batch, and in proportion to the tokens: no intercept, no square."""
    assert formula.prompt_phase(a, b * c) == formula.prompt_phase(a * b, c) == formula.prompt_phase(1, a * b * c)
    assert formula.prompt_phase(a, b) + formula.prompt_phase(a, c) == formula.prompt_phase(a, b + c)


@given(formulas, st.integers(2, 256), prompts, st.integers(1, 300))
def test_a_batch_takes_longer_than_one_and_less_than_as_many(
    formula: Formula, batch: int, prompt: int, response: int
) -> None:
    one, all_of_it = formula.token_phase(1, prompt, response), formula.token_phase(batch, prompt, response)
    assert one < all_of_it < batch * one
    weights = (batch - 1) * response * formula.weight_bytes / formula.bandwidth
    assert batch * one - all_of_it == weights, "what a batch saves is reading the weights again"


def test_a_batch_costs_little_where_weights_are_many() -> None:
    """C is 25 times beta for OPT-6.7B at 1024 tokens: two sequences take 4 % more time than one."""
    assert OPT.token_phase(2, 1024, 512) / OPT.token_phase(1, 1024, 512) < 1.06
    assert 4 < OPT.token_phase(64, 1024, 512) / OPT.token_phase(1, 1024, 512) < 4.1


# --- the line through latencies


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(1e-5, 10)), min_size=1, max_size=20))
def test_the_line_is_that_of_least_squares(samples: list[tuple[int, float]]) -> None:
    tokens, latencies = [n for n, _ in samples], [s for _, s in samples]
    found = fit(tokens, latencies)
    (slope,), *_ = np.linalg.lstsq(np.array(tokens, dtype=float)[:, None], np.array(latencies), rcond=None)
    assert 1 / found.ptps == pytest.approx(slope, rel=1e-9)
    assert found.worst_error == pytest.approx(max(abs(slope * n / s - 1) for n, s in samples), rel=1e-6, abs=1e-9)
    if len(set(tokens)) > 1:
        assert found.intercept == pytest.approx(np.polynomial.Polynomial.fit(tokens, latencies, 1)(0.0), abs=1e-6)
    else:
        assert found.intercept is None


def test_samples_on_a_line_give_its_speed() -> None:
    found = fit([100, 200, 400], [0.01, 0.02, 0.04])
    assert found.ptps == pytest.approx(10_000) and found.worst_error < 1e-12
    assert found.intercept == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("tokens", "latencies", "said"),
    [
        ([], [], "0 latencies of 0 prompts"),
        ([1], [0.0], "took no time"),
        ([0], [1.0], "has no tokens"),
        ([1], [], "0 "),
    ],
)
def test_samples_that_are_none_are_refused(tokens: list[int], latencies: list[float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit(tokens, latencies)


# --- registries


def test_simulate_reads_the_registries(tmp_path: Path) -> None:
    """Index 0 is the prompt phase, n the n-th token; seconds."""
    registry(tmp_path)
    latencys = simulate("opt", 1024, 512, gpu="A100", batch_size=8, registry=tmp_path)
    assert len(latencys) == 513 and latencys == OPT.latencys(8, 1024, 512)
    assert latencys[0] == 0.8192 and latencys[3] == (13.3e9 + (1024 + 3) * 8 * 524_288) / 2e12
    reached = simulate("opt", 1024, 1, gpu="A100", registry=tmp_path, efficiency=0.5)
    assert reached[1] == 2 * OPT.token(1, 1024, 1)


def test_entries_of_other_names_and_spellings_are_read(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        gpu={"NVIDIA A100": {"bandwidth": 2000, "memory": "80GB"}, "L4": 300},
        model={"opt": {"S_MW": 1, "model_size": 5.5e9, "kv_cache_bytes_per_token": 7, "bits": 8}},
        ptps={"opt": {"NVIDIA A100": 123.5}},
    )
    assert found.gpu("nvidia-a100") == found.gpu("x", "NVIDIA A100") and found.gpu("l4").bandwidth == 300e9
    assert found.model("OPT") == ModelEntry("opt", 5.5e9, 7.0, bits=8)
    assert found.ptps("opt", ["nvidia a100"]).ptps == 123.5
    found.add_model(ModelEntry("opt-13b", 26.0, 2.0))
    assert found.model("opt-1.3b") is None and found.model("OPT-13B").weight_bytes == 26
    assert (found.gpu("H100"), found.model("gpt2"), found.ptps("opt", ["L4"]), found.ptps("gpt2", ["L4"])) == (
        None,
    ) * 4


def test_what_is_written_is_read_again_and_the_rest_stays(tmp_path: Path) -> None:
    found = registry(tmp_path, gpu={"A100": {"memory_bandwidth_gb_s": 1, "bought": "2021"}, "old": 5})
    found.add_gpu("A100", 1555e9, "given by hand")
    found.add_gpu("new", None, "to be filled in")
    found.add_model(ModelEntry("m", 10, 3, 8, 16, "m/config.json"))
    found.add_ptps("opt", "new", PtpsEntry(5.25, "a test", (1, 2), (0.5, 0.25)))
    assert json.loads((tmp_path / "gpu.json").read_text()) == {
        "A100": {"memory_bandwidth_gb_s": 1555.0, "bought": "2021", "source": "given by hand"},
        "old": 5,
        "new": {"memory_bandwidth_gb_s": None, "source": "to be filled in"},
    }
    assert found.gpu("A100").bandwidth == 1555e9 and found.model("opt").weight_bytes == 13_300_000_000
    assert found.model("m") == ModelEntry("m", 10.0, 3.0, 8, 16, "m/config.json")
    assert found.ptps("opt", ["new"]) == PtpsEntry(5.25, "a test") and found.ptps("opt", ["A100"]).ptps == 10_000
    with pytest.raises(UserError, match=r"gpu.json, line 8, new: the memory bandwidth is not filled in; write memory_"):
        found.gpu("new")
    other = Registries(tmp_path / "nowhere")
    assert other.gpu("A100") is None
    other.add_gpu("A100", 1e9, "x")
    assert other.gpu("A100").bandwidth == 1e9


WRONG = {
    "gpu": [
        ('{"A100": {"memory_bandwidth_gb_s": -5}}', r"gpu.json, line 1, A100.memory_bandwidth_gb_s: -5 is not a numb"),
        ('{"A100": {"memory_bandwidth_gb_s": null}}', r"gpu.json, line 1, A100: the memory bandwidth is not filled"),
        ('{"A100": "fast"}', r'gpu.json, line 1, A100: "fast" is not an object'),
        ('{"A100": 0}', r"gpu.json, line 1, A100: 0 is not a number above 0"),
        ("[2000]", r"gpu.json, line 1: the registry of GPUs is \[2000\], not an object"),
        ('{"A100": {}', r"gpu.json, line 1: not valid JSON"),
    ],
    "model": [
        ('{"opt":\n {"weight_bytes": "13 GB", "kv_bytes_per_token": 1}}', r'model.json, line 2, opt.weight_bytes: "13'),
        ('{"opt": {"weight_bytes": 5}}', r"model.json, line 1, opt: kv_bytes_per_token or kv_cache_by\S+ .*is missing"),
        ('{"opt": {}}', "model.json: opt is missing or empty"),
        ('{"opt": {"weight_bytes": 5, "kv_bytes_per_token": 1, "bits": 7}}', r"model.json, line 1, opt.bits: 7 is not"),
    ],
    "ptps": [
        ('{"opt": {"A100": {"ptps": 0}}}', r"ptps.json, line 1, opt.A100.ptps: 0 is not a number above 0"),
        ('{"opt": {"A100": {}}}', r"ptps.json, line 1, opt.A100: ptps or k is missing"),
        ('{"opt": 10000}', r"ptps.json, line 1, opt: 10000 is not an object"),
    ],
}


@pytest.mark.parametrize(("name", "text", "said"), [(name, *row) for name, rows in WRONG.items() for row in rows])
def test_a_wrong_registry_is_one_line_with_file_and_field(tmp_path: Path, name: str, text: str, said: str) -> None:
    registry(tmp_path, **{name: text})
    with pytest.raises(UserError, match=said) as caught:
        simulate("opt", 16, 1, gpu="A100", registry=tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_entered_is_taken_from_what_ships(tmp_path: Path) -> None:
    found = known(Registries(tmp_path), "opt-6.7b", "a100 80g")
    assert (found.gpu.bandwidth, found.model.kv_bytes_per_token) == (2039e9, 2 * 32 * 4096 * 2)
    assert found.model.weight_bytes == 13_316_947_968, "6.66e9 parameters of two bytes"
    assert [note.partition(": ")[0].partition(" has ")[2] for note in found.notes] == [
        "no A100-80G",
        "no facebook/opt-6.7b",
    ]
    assert all("orrery profile-" in note for note in found.notes) and not list(tmp_path.iterdir())


def test_an_entry_wins_over_what_ships(tmp_path: Path) -> None:
    entered = {"facebook/opt-6.7b": {"weight_bytes": 5, "kv_bytes_per_token": 6}}
    found = known(registry(tmp_path, gpu={"A100-80G": 1800}, model=entered), "OPT-6.7B", "a100-80g")
    assert (found.gpu.bandwidth, found.model.weight_bytes, found.notes) == (1800e9, 5, ())
    assert found.settings.local_bw == 1800, "the full simulation has it, too"


@pytest.mark.parametrize(
    ("model", "gpu", "said"),
    [
        (
            "opt",
            "RTX 9090",
            '--gpu: .*gpu.json has no "RTX 9090", and no device .* orrery profile-gpu --gpu RTX 9090 --',
        ),
        (
            "opt-9",
            "A100",
            "--model_name: .*model.json has no entry: unknown model 'opt-9'; .*orrery profile-model --mod",
        ),
        ("opt", None, "--gpu: no GPU is named, and PyTorch finds none here; name one"),
    ],
)
def test_what_nobody_knows_is_told_with_how_to_enter_it(
    tmp_path: Path, model: str, gpu: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.estimating.gpu.present_gpu", lambda: None)
    registry(tmp_path)
    with pytest.raises(UserError, match=said):
        simulate(model, 16, 1, gpu=gpu, registry=tmp_path)


def test_a_gpu_of_the_registry_alone_has_no_performance_model(tmp_path: Path) -> None:
    registry(tmp_path, ptps={}, gpu={"mine": 100})
    with pytest.raises(UserError, match='--gpu: "mine" is a name of the registry alone: no performance model knows'):
        simulate("gpt2", 16, 1, gpu="mine", registry=tmp_path)


@pytest.mark.parametrize("asked", [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_a_batch_of_nothing_is_refused(tmp_path: Path, asked: tuple[int, int, int]) -> None:
    prompt, response, batch = asked
    with pytest.raises(UserError, match=r"is too few; give at least [01]$"):
        simulate("opt", prompt, response, gpu="A100", batch_size=batch, registry=tmp_path)
