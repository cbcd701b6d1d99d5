"""`--perf_model profile`: times at, between and beyond the rows of a bundle, by hand; and what batches add to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.small_mixture import CONFIG as MIXTURE
from helpers.small_mixture import small_mixture
from helpers.small_profile import (
    add_skew,
    attention_us,
    bundle,
    experts_us,
    operator_us,
    small_model,
    table,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, make_generator, rows_named

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.mesh import Mesh
from trace_gen.mlp.routing import ExpertSpread
from trace_gen.mlp.routings import routings
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.perf_models.profile.skew import read_skew
from trace_gen.trace import Trace


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelArchitecture:
    return load_model(small_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("bundle"))


def profile(folder: Path, model: ModelArchitecture, tensor: int = 1) -> ProfileModel:
    options = PerfModelOptions(model, load_hardware("RTX4090"), tensor)
    made = make_perf_model("profile", options, profile_dir=folder)
    assert isinstance(made, ProfileModel)
    return made


def traced(perf: ProfileModel, model: ModelArchitecture, *shape: object, mesh: Mesh | None = None, **options) -> Trace:
    return TraceGenerator(model, mesh or Mesh(), perf, **options).generate(list(shape))


def microseconds(trace: Trace, name: str, step: int = 0) -> float:
    return int(trace.latency_ns[step, rows_named(trace, name)[0]]) / 1e3


def test_at_the_rows_times_are_the_tables(folder: Path, model: ModelArchitecture) -> None:
    perf = profile(folder, model)
    trace = traced(perf, model, batch([1] * 4, [256] * 4))
    assert microseconds(trace, "attention") == attention_us(0, 0, 4, 256)
    assert microseconds(trace, "lm_head") == operator_us("lm_head", 4)
    trace = traced(perf, model, batch([64]))
    for name in ("embedding", "layernorm", "qkv_proj", "down_proj", "final_layernorm"):
        assert microseconds(trace, name) == pytest.approx(operator_us(name, 64), abs=6e-4)
    assert microseconds(trace, "attention") == pytest.approx(attention_us(64, 0, 0, 0), abs=6e-4)
    counts = perf.lookups.counts()
    assert counts["attention"].measured == 2 and counts["lm_head"].measured == 2
    assert counts["qkv_proj"].measured == 1 and counts["qkv_proj"].interpolated == 1, "4 tokens lie between 1 and 8"
    assert perf.lookups.notes() == ()


@pytest.mark.parametrize(
    ("new", "context", "sizes"),
    [
        ([1] * 10, [100] * 10, (0, 0, 10, 100)),
        ([40], [30], (40, 30, 0, 0)),
        ([40, *[1] * 3], [300, *[700] * 3], (40, 300, 3, 700)),
    ],
)
def test_between_rows_times_are_interpolated(
    folder: Path, model: ModelArchitecture, new: list[int], context: list[int], sizes: tuple[int, int, int, int]
) -> None:
    perf = profile(folder, model)
    trace = traced(perf, model, batch(new, context))
    assert microseconds(trace, "attention") == pytest.approx(attention_us(*sizes), abs=6e-4)
    assert microseconds(trace, "o_proj") == pytest.approx(operator_us("o_proj", sum(new)), abs=6e-4)
    assert perf.lookups.counts()["attention"].interpolated == 1


@pytest.mark.parametrize(
    ("new", "context", "sizes"),
    [
        ([1] * 4, [2000] * 4, (0, 0, 4, 2000)),
        ([1] * 20, [256] * 20, (0, 0, 20, 256)),
        ([600], [0], (600, 0, 0, 0)),
        ([64], [900], (64, 900, 0, 0)),
    ],
)
def test_beyond_the_rows_slopes_go_on_and_are_counted_and_noted(
    folder: Path, model: ModelArchitecture, new: list[int], context: list[int], sizes: tuple[int, int, int, int]
) -> None:
    perf = profile(folder, model)
    trace = traced(perf, model, batch(new, context))
    assert microseconds(trace, "attention") == pytest.approx(attention_us(*sizes), abs=6e-4)
    assert perf.lookups.counts()["attention"].extrapolated == 1
    (note,) = perf.lookups.notes()
    assert note.startswith(f"{folder}: outside the measured sizes, so extrapolated, were ")
    assert "attention 100 %" in note
    if sum(new) > 512:
        assert microseconds(trace, "qkv_proj") == pytest.approx(operator_us("qkv_proj", sum(new)), abs=6e-4)
        assert "qkv_proj" in note


def test_below_the_rows_times_are_the_firsts(folder: Path, model: ModelArchitecture) -> None:
    perf = profile(folder, model)
    assert microseconds(traced(perf, model, batch([1], [3])), "attention") == attention_us(0, 0, 1, 16)
    assert microseconds(traced(perf, model, batch([2])), "attention") == pytest.approx(attention_us(16, 0, 0, 0))
    assert perf.lookups.counts()["attention"].extrapolated == 2


def test_several_prompts_are_chunks_of_their_own(folder: Path, model: ModelArchitecture) -> None:
    trace = traced(profile(folder, model), model, batch([64, 32, 1, 1], [512, 0, 100, 300]))
    alone = attention_us(16, 0, 2, 200)
    prompts = attention_us(64, 512, 2, 200) + attention_us(32, 0, 2, 200) - 2 * alone
    assert microseconds(trace, "attention") == pytest.approx(alone + prompts, abs=6e-4)
    one = attention_us(96, 512, 2, 200)
    assert microseconds(trace, "attention") < one, "a prompt of as many tokens on the whole context"


def test_slices_whose_grid_is_not_full(tmp_path: Path, model: ModelArchitecture) -> None:
    folder = bundle(tmp_path / "b")
    path = folder / "tp1" / "attention.csv"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("64,64,4,256,", "64,512,16,1024,", "0,0,4,256,"))]
    assert len(kept) == len(lines) - 3
    path.write_text("\n".join(kept) + "\n")
    perf = profile(folder, model)
    for new, context, sizes in (
        ([64, *[1] * 4], [64, *[256] * 4], (64, 64, 4, 256)),
        ([64, *[1] * 4], [100, *[300] * 4], (64, 100, 4, 300)),
        ([1] * 4, [256] * 4, (0, 0, 4, 256)),
    ):
        trace = traced(perf, model, batch(new, context))
        assert microseconds(trace, "attention") == pytest.approx(attention_us(*sizes), abs=6e-4)


@pytest.mark.parametrize("iterations", [1, 3])
def test_unequal_contexts_have_the_tail_that_was_planted(
    tmp_path: Path, model: ModelArchitecture, iterations: int
) -> None:
    folder = bundle(tmp_path / "b", meta={"skew_fit": {"enabled": True}})
    add_skew(folder, 0.013, 0.004, iterations)
    perf = profile(folder, model)
    unequal = [100, 200, 300, 1000]
    trace = traced(perf, model, batch([1] * 4, unequal))
    assert microseconds(trace, "attention") == pytest.approx(attention_us(0, 0, 4, 400) + 0.013 * 600, abs=6e-4)
    trace = traced(perf, model, batch([64, 1, 1, 1, 1], [0, *unequal]))
    assert microseconds(trace, "attention") == pytest.approx(attention_us(64, 0, 4, 400) + 0.004 * 600, abs=6e-4)
    assert microseconds(traced(perf, model, batch([1], [1000])), "attention") == attention_us(0, 0, 1, 1000)


def test_a_number_of_decodes_without_rows_to_fit_takes_its_neighbours_tail(tmp_path: Path) -> None:
    rows = [(4, 0, 1000, 400, 30, 36), (16, 0, 9000, 800, 30, 90), (64, 0, 1000, 400, 30, 42)]
    path = table(tmp_path / "skew.csv", "n,pc,kv_big,kv_mean,t_mean_us,t_skew_us", rows)
    skew = read_skew(path, lambda count, context: 30_000)
    means, longest = np.array([400.0]), np.array([1000])
    excess = [skew.excess_ns(count, means, longest, prompts=False)[0] for count in (2, 4, 34, 64, 90)]
    assert excess == pytest.approx([6000, 6000, 9000, 12000, 12000])
    assert skew.excess_ns(4, means, longest, prompts=True)[0] == 0, "nothing was measured beside prompts"


def test_meta_turns_the_tail_off(tmp_path: Path, model: ModelArchitecture) -> None:
    folder = bundle(tmp_path / "b")
    add_skew(folder, 0.013, 0.004)
    trace = traced(profile(folder, model), model, batch([1] * 4, [100, 200, 300, 1000]))
    assert microseconds(trace, "attention") == attention_us(0, 0, 4, 400)


def test_steps_at_once_are_single_steps(tmp_path: Path, model: ModelArchitecture) -> None:
    folder = bundle(tmp_path / "b", meta={"skew_fit": {"enabled": True}})
    add_skew(folder, 0.013, 0.004)
    perf = profile(folder, model)
    contexts = [13, 250, 1020]
    many = traced(perf, model, batch([1] * 3, contexts, steps=12))
    singles = [traced(perf, model, batch([1] * 3, [one + step for one in contexts])) for step in range(12)]
    assert (many.latency_ns == np.concatenate([single.latency_ns for single in singles])).all()


def test_attention_by_request_is_a_kernel_of_all_heads_each(tmp_path: Path, model: ModelArchitecture) -> None:
    perf = profile(bundle(tmp_path / "b", degrees=(1, 2)), model, 2)
    trace = traced(perf, model, batch([64, 1], [0, 256]), mesh=Mesh(2), attention_placement="requests")
    rows = rows_named(trace, "attention")
    times = {int(trace.request[row]): trace.latency_ns[0, row] / 1e3 for row in rows}
    assert times == pytest.approx({0: attention_us(64, 0, 0, 0), 1: attention_us(0, 0, 1, 256)}, abs=6e-4)


def test_weights_are_cold_at_the_rate_of_the_lm_head(tmp_path: Path) -> None:
    architecture = load_model("meta-llama/Llama-3.1-8B")
    lm_head, down = 128256 * 4096 * 2, 14336 * 4096 * 2

    def dense(name: str, size: float) -> float:
        return 1000 + size if name == "lm_head" else operator_us(name, size)

    folder = bundle(tmp_path / "b", dense=dense)
    trace = traced(profile(folder, architecture), architecture, batch([1], [16]))
    rate = lm_head / 1001
    assert microseconds(trace, "down_proj") == pytest.approx(down / rate, abs=6e-4)
    assert down / rate > operator_us("down_proj", 1)
    trace = traced(profile(folder, architecture), architecture, batch([512]))
    assert operator_us("gate_up_proj", 512) > 2 * down / rate
    assert microseconds(trace, "gate_up_proj") == pytest.approx(operator_us("gate_up_proj", 512), abs=6e-4)
    assert microseconds(trace, "layernorm") == pytest.approx(operator_us("layernorm", 512), abs=6e-4)
    assert microseconds(trace, "lm_head") == 1001


def test_weights_that_stay_in_the_cache_are_as_measured(folder: Path, model: ModelArchitecture) -> None:
    trace = traced(profile(folder, model), model, batch([8]))
    assert microseconds(trace, "down_proj") == pytest.approx(operator_us("down_proj", 8), abs=6e-4)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelArchitecture]:
    folder = tmp_path_factory.mktemp("mixture")
    path, _ = small_mixture(folder)
    made = bundle(folder / "b", meta={"architecture": "qwen3_moe"}, degrees=(1, 2), experts=True)
    return made, load_model(path)


def expert_microseconds(trace: Trace) -> float:
    return microseconds(trace, "expert_gate_up_proj") + microseconds(trace, "expert_down_proj")


def test_experts_are_the_tables(mixture: tuple[Path, ModelArchitecture]) -> None:
    folder, model = mixture
    perf = profile(folder, model)
    trace = traced(perf, model, batch([16]))
    copies, count = MIXTURE["num_experts_per_tok"], MIXTURE["num_experts"]
    active = count * (1 - (1 - copies / count) ** 16)  # type: ignore[operator]
    assert expert_microseconds(trace) == pytest.approx(experts_us(16, active), abs=2e-2)
    assert microseconds(trace, "router") == microseconds(trace, "expert_act_fn") == 1e-3
    assert perf.lookups.counts()["experts"].total == 1


def test_few_tokens_on_more_experts_than_were_measured(mixture: tuple[Path, ModelArchitecture]) -> None:
    folder, model = mixture
    perf = profile(folder, model)
    trace = traced(perf, model, batch([1], [16]))
    assert expert_microseconds(trace) == pytest.approx(experts_us(1, 2), abs=2e-2)
    trace = traced(perf, model, batch([100]))
    assert expert_microseconds(trace) == pytest.approx(experts_us(100, 8), abs=2e-2)
    assert perf.lookups.counts()["experts"].extrapolated == 1


def test_ranks_that_share_every_expert_take_their_part(mixture: tuple[Path, ModelArchitecture]) -> None:
    folder, model = mixture
    whole = expert_microseconds(traced(profile(folder, model), model, batch([64])))
    part = expert_microseconds(traced(profile(folder, model, 2), model, batch([64]), mesh=Mesh(2)))
    assert part == pytest.approx(whole / 2, abs=2e-3)


def test_ranks_with_experts_of_their_own_have_fewer_tokens(mixture: tuple[Path, ModelArchitecture]) -> None:
    folder, model = mixture
    part = expert_microseconds(traced(profile(folder, model, 2), model, batch([64]), mesh=Mesh(2, 1, 2)))
    active = 4 * (1 - (1 - 2 / 8) ** 64)
    assert part == pytest.approx(experts_us(32, active), abs=2e-2)


def test_the_slowest_rank_of_each_layer_decides(mixture: tuple[Path, ModelArchitecture]) -> None:
    folder, model = mixture
    routing = routings.get("random")().routing(model, 3)
    trace = traced(profile(folder, model, 2), model, batch([11]), mesh=Mesh(2, 1, 2), routing=routing)
    loads = routing.loads(ExpertSpread(model.mixtures[0], 2, 2), [0, 1], 0, range(11))
    assert (loads.copies[:, 0] != loads.copies[:, 1]).any()
    for layer, (copies, active) in enumerate(zip(loads.copies, 4 * loads.active, strict=True)):
        ranks = [experts_us(some / 2, held) for some, held in zip(copies, active, strict=True)]
        rows = [rows_named(trace, name)[layer] for name in ("expert_gate_up_proj", "expert_down_proj")]
        assert trace.latency_ns[0, rows].sum() / 1e3 == pytest.approx(max(ranks), abs=2e-2)


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.tuples(st.integers(2, 700), st.integers(0, 900)), max_size=3),
    decodes=st.lists(st.integers(1, 3000), max_size=30),
)
def test_times_are_never_below_a_nanosecond_and_grow(
    folder: Path, model: ModelArchitecture, prompts: list[tuple[int, int]], decodes: list[int]
) -> None:
    if not prompts and not decodes:
        return
    perf = profile(folder, model)

    def attention(more: int) -> int:
        new, context = [chunk for chunk, _ in prompts] + [1] * len(decodes), [kv for _, kv in prompts]
        trace = traced(perf, model, batch(new, [*context, *(one + more for one in decodes)]))
        assert (trace.latency_ns >= 1).all()
        return int(trace.latency_ns[0, rows_named(trace, "attention")[0]])

    least, longer = attention(0), attention(50)
    assert longer >= least


@settings(max_examples=60, deadline=None)
@given(
    points=st.dictionaries(st.integers(0, 5000), st.floats(1, 1e6), min_size=1, max_size=9),
    sizes=st.lists(st.integers(0, 20000), min_size=1, max_size=20),
)
def test_a_curve_of_growing_times_grows(points: dict[int, float], sizes: list[int]) -> None:
    growing = Curve(dict(zip(sorted(points), sorted(points.values()), strict=True)))
    asked = np.array(sorted(sizes))
    times = growing.at(asked)
    assert (np.diff(times) >= -1e-6).all() and (times >= min(points.values())).all()
    found = growing.lookups(asked)
    assert found.total == len(sizes)
    assert found.measured == sum(size in points for size in sizes)
    assert found.extrapolated == sum(not min(points) <= size <= max(points) for size in sizes)


@settings(max_examples=60, deadline=None)
@given(
    points=st.dictionaries(
        st.tuples(st.integers(1, 99), st.integers(0, 99)), st.floats(1, 1e6), min_size=1, max_size=20
    )
)
def test_lines_go_through_their_points(points: dict[tuple[int, int], float]) -> None:
    sizes, times = np.array(list(points)), np.array(list(points.values()))
    lines = Lines(sizes, times)
    assert lines.at(sizes[:, 0], sizes[:, 1]) == pytest.approx(times)
    found = lines.lookups(sizes[:, 0], sizes[:, 1])
    assert (found.measured, found.total) == (len(points), len(points))


def test_an_operator_that_was_not_measured_is_refused_when_it_comes(folder: Path, model: ModelArchitecture) -> None:
    perf = profile(folder, model)
    generator = TraceGenerator(model, Mesh(2, context=2), perf)
    with pytest.raises(UserError, match="nothing was measured of attention_merge"):
        generator.generate([batch([64, 1], [64, 64])])


def test_the_tables_of_another_degree(tmp_path: Path, model: ModelArchitecture) -> None:
    folder = bundle(tmp_path / "b", degrees=(1, 2))
    one, two = (profile(folder, model, tensor) for tensor in (1, 2))
    whole = traced(one, model, batch([8]))
    half = traced(two, model, batch([8]), mesh=Mesh(2))
    assert microseconds(half, "qkv_proj") == pytest.approx(microseconds(whole, "qkv_proj") / 2, abs=1e-3)


def test_helpers_agree_with_the_generator(folder: Path, model: ModelArchitecture) -> None:
    """The roofline's trace of the same model has the same rows."""
    rows = traced(profile(folder, model), model, batch([8]))
    other = make_generator(model).generate([batch([8])])
    assert [rows.name(row) for row in range(rows.rows)] == [other.name(row) for row in range(other.rows)]
