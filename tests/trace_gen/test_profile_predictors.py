"""`--profile_predictor`: times between measured ones that are learned, what is kept of them, and what is looked up."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_mixture import small_mixture
from helpers.small_profile import (
    CHUNKS,
    COUNTS,
    DECODES,
    add_skew,
    attention_us,
    bundle,
    experts_us,
    operator_us,
    small_model,
    table,
    vidur,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, rows_named

from foundation.errors import UserError
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModel, PerfModelOptions
from trace_gen.perf_models.profile import ProfileSettings
from trace_gen.perf_models.profile.attention import UnequalAttention
from trace_gen.perf_models.profile.learning.cache import learned
from trace_gen.perf_models.profile.learning.forest import SEED, Forest
from trace_gen.perf_models.profile.learning.interface import Fitted, FloatArray
from trace_gen.perf_models.profile.learning.learned import LearnedAttention, LearnedCurve, LearnedLines
from trace_gen.perf_models.profile.learning.polynomial import Polynomial
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.perf_models.profile.predictors import predictors
from trace_gen.perf_models.profile.tables import KernelSizes

SKLEARN = "scikit-learn is an extra: pip install 'orrery-sim[learned]'"


class Nearest:
    """The time of the nearest row, twice: so that it is told from what is looked up."""

    def __init__(self, identity: str = "nearest") -> None:
        self.identity = identity
        self.fits: list[tuple[FloatArray, FloatArray]] = []

    def fit(self, sizes: FloatArray, times: FloatArray) -> Fitted:
        self.fits.append((sizes, times))
        return {"sizes": sizes, "times": times}

    def at(self, fitted: Fitted, sizes: FloatArray) -> FloatArray:
        far = np.abs(sizes[:, None, :] - fitted["sizes"][None, :, :]).sum(axis=2)
        return 2 * np.asarray(fitted["times"], dtype=np.float64)[np.argmin(far, axis=1)]


class NearestSettings:
    def predictor(self) -> Nearest:
        return Nearest()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "orrery" / "learned"


def model_of(folder: Path, predictor: Any, config: str, tensor: int = 1) -> PerfModel:
    options = PerfModelOptions(load_model(config), load_hardware("RTX4090"), tensor)
    return ProfileSettings(folder, predictor).model(options)


def microseconds(perf: PerfModel, config: str, name: str, new: list[int], context: list[int] | None = None) -> float:
    trace = TraceGenerator(load_model(config), Mesh(), perf).generate([batch(new, context)])
    return int(trace.latency_ns[0, rows_named(trace, name)[0]]) / 1e3


def near(expected: float) -> Any:
    """Traces have whole nanoseconds."""
    return pytest.approx(expected, abs=6e-4)


# --- what is learned, and what is not


def test_within_the_sizes_times_are_the_predictors_and_outside_the_tables(tmp_path: Path) -> None:
    config, folder = small_model(tmp_path), bundle(tmp_path / "b")
    made, plain = (model_of(folder, one, config) for one in (NearestSettings(), predictors.get("lookup")()))
    assert microseconds(made, config, "o_proj", [60]) == near(2 * operator_us("o_proj", 64))
    for tokens in ([600], [5000]):
        outside = [microseconds(perf, config, "o_proj", tokens) for perf in (made, plain)]
        assert outside[0] == outside[1] > operator_us("o_proj", 512)
    assert microseconds(made, config, "attention", [1] * 5, [200] * 5) == near(2 * attention_us(0, 0, 4, 256))
    assert microseconds(made, config, "attention", [70], [60]) == near(2 * attention_us(64, 64, 0, 0))
    mixed = microseconds(made, config, "attention", [70, *[1] * 4], [60, *[250] * 4])
    assert mixed == near(2 * attention_us(64, 64, 4, 256))
    for new, context in (([1] * 20, [256] * 20), ([1] * 4, [2000] * 4), ([16, 1], [600, 16]), ([300], [0])):
        both = [microseconds(perf, config, "attention", new, context) for perf in (made, plain)]
        assert both[0] == both[1]
    assert isinstance(made, ProfileModel) and isinstance(plain, ProfileModel)
    assert made.lookups.counts()["attention"].extrapolated == 6, "prompts of 600 and 5,000 tokens, and the four"
    assert any("learned (nearest): --profile_predictor" in note for note in made.notes)
    assert not any("learned" in note for note in plain.notes)


def test_attention_is_learned_in_three_kinds_each_from_its_own_rows(tmp_path: Path) -> None:
    predictor = Nearest()
    config = small_model(tmp_path)

    class Settings:
        def predictor(self) -> Nearest:
            return predictor

    model_of(bundle(tmp_path / "b"), Settings(), config)
    shapes = sorted(sizes.shape for sizes, _ in predictor.fits if sizes.shape[1] > 1)
    prompts, decodes = len(CHUNKS) * 3, len(COUNTS) * len(DECODES)
    assert shapes == sorted([(decodes, 2), (prompts, 2), (prompts * decodes, 4)])


def test_several_prompts_add_what_they_have_beyond_the_least(tmp_path: Path) -> None:
    config, folder = small_model(tmp_path), bundle(tmp_path / "b")
    made = model_of(folder, NearestSettings(), config)
    base = 2 * attention_us(16, 0, 4, 256)
    more = [2 * attention_us(chunk, past, 4, 256) - base for chunk, past in ((64, 64), (256, 0))]
    found = microseconds(made, config, "attention", [64, 256, *[1] * 4], [64, 0, *[256] * 4])
    assert found == near(base + sum(more))


def test_unequal_contexts_take_what_they_took_longer(tmp_path: Path) -> None:
    config = small_model(tmp_path)
    folder = bundle(tmp_path / "b", meta={"skew_fit": {"enabled": True}})
    add_skew(folder, 0.01, 0.02)
    made, plain = (model_of(folder, one, config) for one in (NearestSettings(), predictors.get("lookup")()))
    assert isinstance(made, ProfileModel) and isinstance(plain, ProfileModel)
    own, looked_up = made.measured.attention, plain.measured.attention
    assert isinstance(own, LearnedAttention) and isinstance(looked_up, UnequalAttention) and looked_up.skew is not None
    unequal = KernelSizes(np.array([], dtype=np.int64), np.array([], dtype=np.int64), np.array([[16, 16, 16, 976]]))
    equal = KernelSizes(unequal.chunks, unequal.contexts, np.full((1, 4), 256))
    excess = [float((times.kernel_ns(unequal) - times.kernel_ns(equal))[0]) for times in (own, looked_up)]
    assert excess[0] == pytest.approx(excess[1]) and excess[0] == pytest.approx(10 * (976 - 256))


def test_experts_vidurs_tables_and_those_of_v0_are_learned(tmp_path: Path) -> None:
    mixture, _ = small_mixture(tmp_path)
    made = model_of(bundle(tmp_path / "e", experts=True), NearestSettings(), mixture)
    assert isinstance(made, ProfileModel) and isinstance(made.measured.experts, LearnedLines)
    found = made.measured.experts.at(np.array([15, 100]), np.array([7, 8]))
    assert found[0] == pytest.approx(2e3 * experts_us(16, 8)) and found[1] == pytest.approx(1e3 * experts_us(100, 8))
    config = small_model(tmp_path)
    twice, once = (
        model_of(vidur(tmp_path / "v"), one, config) for one in (NearestSettings(), predictors.get("lookup")())
    )
    for name in ("qkv_proj", "attention"):
        both = [microseconds(perf, config, name, [64], [64]) for perf in (twice, once)]
        assert both[0] == pytest.approx(2 * both[1], rel=1e-3)
    rows = [("RTX4090", "small", name, size, 0, 1000 * size) for name in V0 for size in (1, 10, 100)]
    rows += [
        ("RTX4090", "small", name, 1, context, 5000 + context) for name in ("rope", "attn") for context in (10, 20)
    ]
    v0 = table(tmp_path / "v0.csv", "hardware,model,layer_name,input,kv_cache,latency(ns)", rows)
    made = model_of(v0, NearestSettings(), config)
    assert microseconds(made, config, "o_proj", [10]) == 20, "a size that has a row is learned, too"
    assert microseconds(made, config, "o_proj", [90]) == 200
    assert microseconds(made, config, "attn", [1], [14]) == pytest.approx(2 * 5.010)


V0 = ("embedding", "input_layernorm", "q_proj", "k_proj", "v_proj", "rope", "attn", "o_proj", "post_layernorm")
V0 += ("gate_proj", "up_proj", "act_fn", "down_proj", "final_layernorm", "lm_head")


def test_loops_that_are_compiled_are_not_asked_for_learned_attention(tmp_path: Path) -> None:
    config = small_model(tmp_path)
    architecture = load_model(config)
    shape = next(
        iter(
            architecture.layers[0]
            .attention.shapes(1, PerfModelOptions(architecture, load_hardware("RTX4090")).precision)
            .values()
        )
    )
    made, plain = (
        model_of(bundle(tmp_path / "b"), one, config) for one in (NearestSettings(), predictors.get("lookup")())
    )
    assert isinstance(made, ProfileModel) and isinstance(plain, ProfileModel)
    assert made.compiled_attention(shape) is None and plain.compiled_attention(shape) is not None


# --- the cache


def test_what_was_learned_is_learned_once_and_anew_where_the_rows_or_the_predictor_change(cache: Path) -> None:
    sizes, times = np.array([[1.0], [2.0]]), np.array([5.0, 6.0])
    predictor = Nearest()
    first, again = learned(predictor, sizes, times), learned(predictor, sizes, times)
    assert len(predictor.fits) == 1 and len(list(cache.glob("*.npz"))) == 1
    assert {name: value.tobytes() for name, value in first.items()} == {
        name: value.tobytes() for name, value in again.items()
    }
    learned(predictor, sizes, np.array([5.0, 6.5]))
    learned(predictor, sizes + 1, times)
    learned(predictor, sizes.T.copy(), times[:1])
    assert len(predictor.fits) == 4, "another time, other sizes, the same bytes in another shape"
    other = Nearest("nearest 2")
    learned(other, sizes, times)
    assert len(other.fits) == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_file_is_learned_again(cache: Path, damage: bytes | None) -> None:
    sizes, times = np.array([[1.0], [2.0]]), np.array([5.0, 6.0])
    predictor = Nearest()
    learned(predictor, sizes, times)
    (path,) = cache.glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert learned(predictor, sizes, times)["times"].tolist() == [5.0, 6.0]
    assert len(predictor.fits) == 2 and path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    predictor = Nearest()
    for _ in range(2):
        assert learned(predictor, np.array([[1.0]]), np.array([5.0]))["times"].tolist() == [5.0]
    assert len(predictor.fits) == 2


def test_several_runs_may_learn_the_same_at_once(cache: Path) -> None:
    sizes, times = np.arange(4000.0)[:, None], np.arange(4000.0) + 1
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: learned(Nearest(), sizes, times)["times"].tobytes(), range(24)))
    assert set(found) == {times.tobytes()}
    assert [path.suffix for path in cache.iterdir()] == [".npz"], "nothing is left behind"


# --- refusals


@pytest.mark.parametrize(
    ("predictor", "module"), [(Forest(2), "sklearn.ensemble"), (Polynomial(2), "sklearn.linear_model")]
)
def test_without_the_library_the_extra_is_named(predictor: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"--profile_predictor: learned times need scikit-learn.*orrery-sim\[learned\]"):
        predictor.fit(np.arange(1.0, 9.0)[:, None], np.arange(1.0, 9.0))


# --- the predictors themselves


def test_a_forest_is_scikit_learns_whatever_the_processors() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason=SKLEARN)
    draw = np.random.default_rng(1)
    sizes = draw.integers(1, 3000, (400, 3)).astype(np.float64)
    times = 5 + sizes[:, 0] * 0.1 + sizes[:, 1] * sizes[:, 2] * 1e-3
    asked = draw.integers(1, 3000, (300, 3)).astype(np.float64)
    fitted = Forest(7).fit(sizes, times)
    theirs = ensemble.RandomForestRegressor(7, random_state=SEED, n_jobs=2).fit(sizes.astype(np.float32), np.log(times))
    expected = np.exp(theirs.predict(asked.astype(np.float32)))
    np.testing.assert_allclose(Forest(7).at(fitted, asked), expected, rtol=1e-12)
    again = Forest(7).fit(sizes, times)
    assert all(again[name].tobytes() == value.tobytes() for name, value in fitted.items())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(1, 5000), st.floats(1.0, 1e6), min_size=1, max_size=40), st.integers(1, 6000))
def test_no_predictor_leaves_what_is_possible(points: dict[int, float], asked: int) -> None:
    pytest.importorskip("sklearn", reason=SKLEARN)
    curve = Curve(points)
    forest, polynomial = (LearnedCurve(curve, one) for one in (Forest(3), Polynomial(3)))
    within = min(points) <= asked <= max(points)
    found = float(forest.at(np.array([asked]))[0])
    if within:
        assert min(points.values()) * (1 - 1e-9) <= found <= max(points.values()) * (1 + 1e-9)
        assert float(polynomial.at(np.array([asked]))[0]) >= min(points.values())
    else:
        outside = float(curve.at(np.array([asked]))[0])
        assert found == outside == float(polynomial.at(np.array([asked]))[0])


def test_a_polynomial_finds_one_that_is_there(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason=SKLEARN)
    config = small_model(tmp_path)
    made = model_of(bundle(tmp_path / "b"), predictors.get("polynomial")(), config)
    for new, context, sizes in (
        ([1] * 9, [700] * 9, (0, 0, 9, 700)),
        ([100], [333], (100, 333, 0, 0)),
        ([100, *[1] * 9], [333, *[700] * 9], (100, 333, 9, 700)),
    ):
        assert microseconds(made, config, "attention", new, context) == pytest.approx(attention_us(*sizes), rel=1e-3)
    sizes = np.array([[a, b] for a in range(1, 8) for b in range(1, 8)], dtype=np.int64)
    times = 3.0 + sizes[:, 0] ** 2 * sizes[:, 1] * 0.5
    found = LearnedLines(Lines(sizes, times), Polynomial(5)).at(np.array([2.5]), np.array([6.5]))
    assert float(found[0]) == pytest.approx(3.0 + 2.5**2 * 6.5 * 0.5, rel=1e-6)


def test_a_run_with_a_forest_is_the_same_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason=SKLEARN)
    config, folder = small_model(tmp_path), bundle(tmp_path / "b")
    sizes = ([5, 77, *[1] * 6], [0, 30, *[99, 100, 400, 20, 600, 1000]])

    def latencies() -> bytes:
        perf = model_of(folder, predictors.get("forest")(), config)
        return TraceGenerator(load_model(config), Mesh(), perf).generate([batch(*sizes)]).latency_ns.tobytes()

    first = latencies()
    monkeypatch.setattr(Forest, "fit", lambda *_: pytest.fail("is in the cache"))
    assert latencies() == first


def test_the_benchmark_tells_what_lines_and_predictors_miss(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason=SKLEARN)
    from benchmarks.predictor_accuracy import AXES, bundle_errors

    folder = bundle(tmp_path / "b", experts=True)
    errors = bundle_errors(folder, 1, every=1, rows=4)
    assert {name for name in errors if name.startswith("attention")} == {
        f"attention, a {axis} less" for axis in AXES[:1] + AXES[1:]
    } - {"attention, a prompt's context less"}
    for name, by in errors.items():
        assert set(by) == set(predictors)
        assert max(by["lookup"]) == pytest.approx(0, abs=1e-4), f"{name}: these tables are straight lines"
    assert max(errors["attention, a decodes' context less"]["forest"]) > 1e-3
