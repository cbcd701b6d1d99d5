"""`--perf_model aiconfigurator`, over a folder of tables of our own, and over the package's where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers.aiconfigurator_tables import (
    LATENT,
    MIXTURE,
    MODEL,
    ROWS,
    SIDES,
    SYSTEM,
    decodes_ms,
    experts_ms,
    latent_ms,
    matrix_ms,
    prompts_ms,
    system,
    up_projection_ms,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, rows_named

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.aiconfigurator.curves import rising, without_outliers
from trace_gen.perf_models.aiconfigurator.files import Kernels
from trace_gen.perf_models.aiconfigurator.matrices import MatrixTimes
from trace_gen.perf_models.aiconfigurator.model import AiconfiguratorModel
from trace_gen.precision import Precision
from trace_gen.trace import Trace

ROOFLINES = ("embedding", "layernorm", "rotary_emb", "act_fn", "final_layernorm", "sampler")


def load(folder: Path, document: dict[str, object] | None = None) -> ModelArchitecture:
    path = folder / "model.json"
    path.write_text(json.dumps(document or MODEL))
    return load_model(str(path))


def measured(
    folder: Path, model: ModelArchitecture, hardware: str = "A40", precision: Precision | None = None, **given: object
) -> AiconfiguratorModel:
    options = PerfModelOptions(model, load_hardware(hardware), precision=precision or Precision())
    made = make_perf_model(
        "aiconfigurator", options, aiconfigurator_tables=folder, aiconfigurator_system=SYSTEM, **given
    )
    assert isinstance(made, AiconfiguratorModel)
    return made


def traced(perf: AiconfiguratorModel, model: ModelArchitecture, *shapes: object, mesh: Mesh | None = None) -> Trace:
    return TraceGenerator(model, mesh or Mesh(), perf).generate(list(shapes))


def ms(trace: Trace, name: str) -> float:
    return int(trace.latency_ns[0, rows_named(trace, name)[0]]) / 1e6


def test_at_the_rows_times_are_the_tables(tmp_path: Path) -> None:
    model = load(tmp_path)
    perf = measured(system(tmp_path), model)
    trace = traced(perf, model, batch([128]))
    sides = {"qkv_proj": (1024, 256), "o_proj": (256, 512), "gate_up_proj": (2048, 256), "down_proj": (256, 1024)}
    for name, (n, k) in sides.items():
        assert ms(trace, name) == pytest.approx(matrix_ms(128, n, k), abs=1e-6), name
    assert ms(trace, "lm_head") == pytest.approx(matrix_ms(1, 4096, 256), abs=1e-6)
    assert ms(trace, "attention") == pytest.approx(prompts_ms(1, 128, 8), abs=2e-6)
    trace = traced(perf, model, batch([1] * 16, [1024] * 16))
    assert ms(trace, "attention") == pytest.approx(decodes_ms(16, 1024, 4), abs=2e-6)
    counts = perf.lookups.counts()
    assert {name: counts[name].measured for name in sides} == dict.fromkeys(sides, 2)
    assert counts["attention"].measured == 2 and not counts["attention"].interpolated


def test_what_no_table_has_is_the_rooflines_and_is_told(tmp_path: Path) -> None:
    model = load(tmp_path)
    perf = measured(system(tmp_path), model)
    plain = make_perf_model("roofline", PerfModelOptions(model, load_hardware("A40")))
    both = [TraceGenerator(model, Mesh(), one).generate([batch([100, 1], [0, 30])]) for one in (perf, plain)]
    for name in ROOFLINES:
        assert ms(both[0], name) == ms(both[1], name)
    assert ms(both[0], "qkv_proj") != ms(both[1], "qkv_proj")
    assert {name for name, counts in perf.lookups.counts().items() if counts.roofline} == set(ROOFLINES)
    (said,) = [note for note in perf.lookups.notes() if "in no table" in note]
    assert all(name in said for name in ROOFLINES)


@pytest.mark.parametrize(("lacking", "name"), [("attention", "attention"), ("gemm", "qkv_proj")])
def test_a_family_without_tables_is_the_rooflines(tmp_path: Path, lacking: str, name: str) -> None:
    model = load(tmp_path)
    folder = system(tmp_path, without=(lacking,))
    (folder / "data" / SYSTEM / "gemm/vllm/1.2.0").mkdir(parents=True, exist_ok=True)
    (folder / "data" / SYSTEM / "gemm/vllm/1.2.0/other.csv").touch()
    perf = measured(folder, model)
    plain = make_perf_model("roofline", PerfModelOptions(model, load_hardware("A40")))
    both = [TraceGenerator(model, Mesh(), one).generate([batch([40])]) for one in (perf, plain)]
    assert ms(both[0], name) == ms(both[1], name) and perf.lookups.counts()[name].roofline == 1


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}


def test_products_in_8_bits_are_read_unless_the_host_was_timed(tmp_path: Path) -> None:
    """A table of block-scaled products that all take 0.1 ms more tells of launching, not of kernels."""
    model = load(tmp_path, {**MODEL, "quantization_config": FP8})
    perf = measured(system(tmp_path), model, "L40S")
    assert ms(traced(perf, model, batch([128])), "o_proj") == pytest.approx(0.6 * matrix_ms(128, 256, 512), abs=1e-6)
    model = load(tmp_path, {**MODEL, "quantization_config": {**FP8, "weight_block_size": [128, 128]}})
    perf = measured(tmp_path, model, "L40S")
    plain = make_perf_model("roofline", PerfModelOptions(model, load_hardware("L40S")))
    both = [TraceGenerator(model, Mesh(), one).generate([batch([128])]) for one in (perf, plain)]
    assert ms(both[0], "o_proj") == ms(both[1], "o_proj")
    assert any("fp8_block" in note and "host" in note for note in perf.notes)


def test_eight_bit_activations_are_in_no_table(tmp_path: Path) -> None:
    model = load(tmp_path)
    perf = measured(system(tmp_path), model, "L40S", Precision(8, 8, 8))
    traced(perf, model, batch([40]))
    assert not any(counts.total for counts in perf.lookups.counts().values())


def plain_ns(rows: int, outputs: int, inputs: int) -> float:
    """Return a plain roofline's time on a device of 1 PFLOP/s and 1 TB/s."""
    moved = 2 * (outputs * inputs + rows * outputs + rows * inputs)
    return float(np.hypot(2 * rows * outputs * inputs / 1e15, moved / 1e12)) * 1e9


@cache
def halved() -> MatrixTimes:
    """Return a table of kernels that take half of what the base says, which so has the plain least as its own."""
    sizes = np.array(list(product(ROWS, SIDES, SIDES)))
    times = np.array([0.5 * (plain_ns(1, 256, 256) + plain_ns(*size)) for size in sizes.tolist()])
    return MatrixTimes(Kernels(Path("table"), dict(zip("mnk", sizes.T, strict=True)), {}, times), 1e15, 1e12, 2.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.integers(1, 5000), outputs=st.integers(32, 20000), inputs=st.integers(32, 20000))
def test_what_is_alike_everywhere_is_so_between_and_beyond_the_rows(rows: int, outputs: int, inputs: int) -> None:
    time, counts = halved().time_ns(rows, outputs, inputs)
    assert time == pytest.approx(0.5 * (plain_ns(1, 256, 256) + plain_ns(rows, outputs, inputs)), rel=1e-9)
    outside = not (1 <= rows <= 1024 and 256 <= outputs <= 4096 and 256 <= inputs <= 4096)
    assert (counts.extrapolated, counts.total) == (int(outside), 1)


def test_between_two_rows_by_hand(tmp_path: Path) -> None:
    """90 rows between 64 and 128: the logarithm of the ratio to the base, over the logarithm of the rows."""
    model = load(tmp_path)
    trace = traced(measured(system(tmp_path), model), model, batch([90]))
    a40 = load_hardware("A40")

    def base(m: int) -> float:
        moved = 2 * (1024 * 256 + m * (1024 + 256)) / a40.memory_bandwidth
        return matrix_ms(1, 256, 256) + float(np.hypot(2 * m * 1024 * 256 / a40.peak_flops["bf16"], moved)) * 1e3

    ratios = [matrix_ms(m, 1024, 256) / base(m) for m in (64, 128)]
    share = np.log(90 / 64) / np.log(128 / 64)
    assert ms(trace, "qkv_proj") == pytest.approx(base(90) * ratios[0] ** (1 - share) * ratios[1] ** share, abs=1e-6)


@pytest.mark.parametrize("slower", [6.0, 0.2])
def test_a_row_that_is_an_outlier_does_not_count(tmp_path: Path, slower: float) -> None:
    def disturbed(m: int, n: int, k: int) -> float:
        return matrix_ms(m, n, k) * (slower if (m, n, k) == (128, 1024, 256) else 1)

    model = load(tmp_path)
    perf = measured(system(tmp_path, matrix=disturbed), model)
    found = ms(traced(perf, model, batch([128])), "qkv_proj")
    assert found == pytest.approx(matrix_ms(128, 1024, 256), rel=0.05)
    assert any("1 of" in note and "outliers" in note for note in perf.notes)
    undisturbed = measured(system(tmp_path / "other"), model)
    traced(undisturbed, model, batch([128]))
    assert not any("outliers" in note for note in undisturbed.notes)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_fitted_curves_never_fall_and_small_steps_stay(values: list[float]) -> None:
    array, sizes = np.array(values), np.arange(len(values), dtype=np.float64)
    fit = rising(array)
    assert (np.diff(fit) >= 0).all() and fit.min() >= array.min() and fit.max() <= array.max()
    sound, corrected = without_outliers(sizes, array)
    falls = np.maximum.accumulate(sound) - sound
    assert falls.max() <= 2 * np.log(1.1) + 1e-12, "no more than 10 % off to either side of a curve that never falls"
    assert int((sound != array).sum()) <= corrected < len(values)
    assert without_outliers(sizes, np.sort(array))[1] == 0


def test_a_fit_is_the_nearest_by_absolute_differences() -> None:
    assert rising(np.array([1.0, 2.0, 9.0, 3.0, 4.0])).tolist() == [1, 2, 4, 4, 4]
    assert rising(np.array([1.0, 2.0, 3.0, 0.0, 4.0])).tolist() == [1, 2, 2, 2, 4]


def test_decodes_beside_prompts_weigh_what_each_takes(tmp_path: Path) -> None:
    """The ratio of a mixed batch lies between those of its parts, and of unequal contexts the mean counts."""
    model = load(tmp_path)
    perf = measured(system(tmp_path), model)
    plain = make_perf_model("roofline", PerfModelOptions(model, load_hardware("A40")))
    shapes = [batch([300], [0]), batch([1] * 9, [500] * 9), batch([300, *[1] * 9], [0, *[500] * 9])]
    ratios = []
    for one in shapes:
        own, base = (ms(TraceGenerator(model, Mesh(), each).generate([one]), "attention") for each in (perf, plain))
        ratios.append(own / base)
    assert min(ratios[:2]) * 0.999 <= ratios[2] <= max(ratios[:2]) * 1.001
    alike, uneven = batch([1] * 2, [512, 512]), batch([1] * 2, [24, 1000])
    assert ms(traced(perf, model, alike), "attention") == pytest.approx(
        ms(traced(perf, model, uneven), "attention"), rel=0.05
    )


def test_steps_of_decodes_are_as_one_after_another(tmp_path: Path) -> None:
    model = load(tmp_path)
    perf = measured(system(tmp_path), model)
    (shape,) = TraceGenerator(model, Mesh(), perf).attention_shapes()
    together = perf.attention_ns(shape, batch([1] * 3, [10, 90, 500], steps=40))
    singly = [perf.attention_ns(shape, batch([1] * 3, [10 + j, 90 + j, 500 + j]))[0] for j in range(40)]
    assert together.tolist() == singly


def test_experts_are_timed_as_one(tmp_path: Path) -> None:
    model = load(tmp_path, MIXTURE)
    perf = measured(system(tmp_path), model)
    trace = traced(perf, model, batch([128]))
    parts = [ms(trace, name) for name in ("expert_gate_up_proj", "expert_down_proj")]
    assert sum(parts) == pytest.approx(experts_ms(128, 1, 1), abs=2e-6) and parts[0] == pytest.approx(
        2 * parts[1], rel=1e-3
    )
    assert ms(trace, "expert_act_fn") == ms(trace, "expert_sum") == 1e-6
    assert perf.lookups.counts()["experts"].measured > 0


@pytest.mark.parametrize(("mesh", "ways"), [(Mesh(2), (1, 2)), (Mesh(2, expert=2), (2, 1))])
def test_experts_divided_over_ranks(tmp_path: Path, mesh: Mesh, ways: tuple[int, int]) -> None:
    model = load(tmp_path, MIXTURE)
    options = PerfModelOptions(model, load_hardware("A40"), 2)
    perf = make_perf_model(
        "aiconfigurator", options, aiconfigurator_tables=system(tmp_path), aiconfigurator_system=SYSTEM
    )
    trace = TraceGenerator(model, mesh, perf).generate([batch([128])])
    parts = [ms(trace, name) for name in ("expert_gate_up_proj", "expert_down_proj")]
    assert sum(parts) == pytest.approx(experts_ms(128, *ways), abs=2e-6)


def test_a_mixture_in_no_table_is_the_rooflines(tmp_path: Path) -> None:
    model = load(tmp_path, {**MIXTURE, "num_local_experts": 16})
    perf = measured(system(tmp_path), model)
    traced(perf, model, batch([128]))
    counts = perf.lookups.counts()
    assert counts["expert_gate_up_proj"].roofline and "experts" not in counts


def test_latent_attention_has_tables_of_its_own(tmp_path: Path) -> None:
    """Of another framework, where the wanted one has none: prompts are expanded, decodes absorbed."""
    model = load(tmp_path, LATENT)
    perf = measured(system(tmp_path), model)
    trace = traced(perf, model, batch([1] * 16, [1024] * 16))
    assert ms(trace, "latent_attention") == pytest.approx(latent_ms(16, 1024, decodes=True), abs=2e-6)
    assert ms(trace, "q_absorb") == pytest.approx(up_projection_ms(16), abs=2e-6)
    assert ms(trace, "v_up_proj") == pytest.approx(2 * up_projection_ms(16), abs=2e-6)
    trace = traced(perf, model, batch([128] * 4))
    assert ms(trace, "attention") == pytest.approx(latent_ms(4, 128, decodes=False), abs=2e-6)
    counts = perf.lookups.counts()
    assert counts["attention"].measured == 2 and counts["q_absorb"].measured == 1
    assert any("sglang 1.2.0" in note for note in perf.notes)


@pytest.mark.parametrize("form", ["expand", "absorb"])
def test_latent_attention_in_one_form_only_has_the_tables_of_that_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(LATENT))
    model = load_model(str(path), mla=form)  # type: ignore[arg-type]
    perf = measured(system(tmp_path), model)
    plain = make_perf_model("roofline", PerfModelOptions(model, load_hardware("A40")))
    other = batch([1] * 4, [128] * 4) if form == "expand" else batch([128])
    name = "attention" if form == "expand" else "latent_attention"
    both = [TraceGenerator(model, Mesh(), one).generate([other]) for one in (perf, plain)]
    assert ms(both[0], name) == ms(both[1], name) and perf.lookups.counts()["attention"].roofline == 1


def test_heads_that_were_not_measured_go_by_those_most_alike(tmp_path: Path) -> None:
    """16 heads on 8 KV heads: as 8 on 4, of twice as many requests; no lookup counts as measured."""
    model = load(tmp_path, {**MODEL, "num_attention_heads": 16, "num_key_value_heads": 8})
    perf = measured(system(tmp_path), model)
    plain = make_perf_model("roofline", PerfModelOptions(model, load_hardware("A40")))
    both = [TraceGenerator(model, Mesh(), one).generate([batch([1] * 8, [1024] * 8)]) for one in (perf, plain)]
    alike = load(tmp_path)
    roofline = make_perf_model("roofline", PerfModelOptions(alike, load_hardware("A40")))
    base = ms(TraceGenerator(alike, Mesh(), roofline).generate([batch([1] * 16, [1024] * 16)]), "attention")
    ratio = decodes_ms(16, 1024, 4) / base
    assert ms(both[0], "attention") == pytest.approx(ms(both[1], "attention") * ratio, rel=1e-4)
    assert perf.lookups.counts()["attention"].interpolated == 1


def test_the_newest_version_is_read(tmp_path: Path) -> None:
    model = load(tmp_path)
    for newer, by in (("1.9.0", 2.0), ("1.10.0rc2", 3.0), ("1.10.0", 5.0), ("1.10.0rc10", 4.0)):
        system(tmp_path, matrix=lambda m, n, k, by=by: by * matrix_ms(m, n, k), version=newer)  # type: ignore[misc]
    trace = traced(measured(tmp_path, model), model, batch([128]))
    assert ms(trace, "o_proj") == pytest.approx(5 * matrix_ms(128, 256, 512), abs=1e-6)


def test_what_the_newest_version_lacks_an_older_one_has(tmp_path: Path) -> None:
    """The newest may have single operators of new models only."""
    model = load(tmp_path, MIXTURE)
    newest = system(system(tmp_path), version="2.0.0") / "data" / SYSTEM
    _break(newest / "moe/vllm/2.0.0/moe_perf.csv", lambda text: text.replace(",1024,2,8,", ",512,2,8,"))
    _break(newest / "gemm/vllm/2.0.0/gemm_perf.csv", lambda text: text.replace("bfloat16", "nvfp4"))
    perf = measured(tmp_path, model)
    trace = traced(perf, model, batch([128]))
    assert ms(trace, "o_proj") == pytest.approx(matrix_ms(128, 256, 512), abs=1e-6)
    parts = [ms(trace, name) for name in ("expert_gate_up_proj", "expert_down_proj")]
    assert sum(parts) == pytest.approx(experts_ms(128, 1, 1), abs=2e-6)
    assert any("vllm 1.2.0, vllm 2.0.0" in note for note in perf.notes)


def _break(path: Path, edit: Callable[[str], str]) -> None:
    path.write_text(edit(path.read_text()))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text.replace("gemm_dtype", "dtype"), "lacks the column gemm_dtype"),
        (lambda text: text.replace("bfloat16,1,256,256,", "bfloat16,1,256,256,-"), "milliseconds above 0"),
        (lambda text: text.replace("bfloat16,16,", "bfloat16,x,", 1), "expected a whole number"),
        (lambda text: text.splitlines()[0], "has no rows"),
    ],
)
def test_wrong_tables_are_told_with_file_and_line(tmp_path: Path, edit: Callable[[str], str], said: str) -> None:
    model = load(tmp_path)
    _break(system(tmp_path) / "data" / SYSTEM / "gemm/vllm/1.2.0/gemm_perf.csv", edit)
    with pytest.raises(UserError, match=said) as error:
        measured(tmp_path, model)
    assert "gemm_perf.csv" in str(error.value)


def test_a_device_without_tables_and_folders_without_systems(tmp_path: Path) -> None:
    model = load(tmp_path)
    options = PerfModelOptions(model, load_hardware("MI300X"))
    with pytest.raises(UserError, match="no tables of MI300X"):
        make_perf_model("aiconfigurator", options)
    with pytest.raises(UserError, match="has no folder data"):
        make_perf_model("aiconfigurator", options, aiconfigurator_tables=tmp_path, aiconfigurator_system="h100_sxm")
    with pytest.raises(UserError, match=r"no tables of a system 'h100_sxm'.*small_gpu"):
        make_perf_model(
            "aiconfigurator", options, aiconfigurator_tables=system(tmp_path), aiconfigurator_system="h100_sxm"
        )


def _installed() -> bool:
    try:
        return version("aiconfigurator-core") == "0.12.0"
    except PackageNotFoundError:
        return False


installed = pytest.mark.skipif(not _installed(), reason="aiconfigurator-core 0.12.0 is not installed")
NAMED = [path.stem for path in sorted(HARDWARE_FOLDER.glob("*.json")) if load_hardware(path.stem).aiconfigurator_system]


@pytest.mark.skipif(_installed(), reason="aiconfigurator-core is installed")
def test_without_the_package_it_is_said_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"aiconfigurator-core 0.12.0 is not installed.*pip install"):
        make_perf_model("aiconfigurator", PerfModelOptions(load(tmp_path), load_hardware("H100")))


@installed
@pytest.mark.parametrize("hardware", NAMED)
def test_the_packages_tables(hardware: str) -> None:
    """Times are finite, near the roofline's within a factor, and what is in a table is found there."""
    model = load_model("meta-llama/Llama-3.1-8B")
    options = PerfModelOptions(model, load_hardware(hardware))
    both = [make_perf_model(name, options) for name in ("aiconfigurator", "roofline")]
    for one in (batch([2048]), batch([1] * 32, [1000] * 32), batch([512, 1, 1], [100, 700, 30])):
        own, plain = (TraceGenerator(model, Mesh(), each).generate([one]).latency_ns.sum() for each in both)
        assert 1 / 3 < own / plain < 3
    counts = both[0].lookups.counts()  # type: ignore[attr-defined]
    assert counts["qkv_proj"].total == 3 and counts["attention"].total > 2


@installed
def test_a_row_of_the_packages_tables() -> None:
    """H100, vLLM 0.24.0: 128 rows, 4096 outputs, 4096 inputs in bfloat16 take 17.2 us."""
    model = load_model("meta-llama/Llama-3.1-8B")
    perf = make_perf_model("aiconfigurator", PerfModelOptions(model, load_hardware("H100")))
    trace = TraceGenerator(model, Mesh(), perf).generate([batch([128])])
    assert ms(trace, "o_proj") == pytest.approx(0.0172, rel=0.01)
