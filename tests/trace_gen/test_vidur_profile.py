"""Vidur's profiling tables: what its operators become, by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_profile import (
    operator_us,
    small_model,
    vidur,
    vidur_decode_us,
    vidur_prefill_us,
    vidur_save_us,
    vidur_us,
)
from trace_cases import batch, rows_named

from foundation.errors import UserError
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.precision import Precision
from trace_gen.trace import Trace


def options(folder: Path) -> PerfModelOptions:
    return PerfModelOptions(load_model(small_model(folder)), load_hardware("A100"))


def load(folder: Path, **changes: object) -> ProfileModel:
    made = make_perf_model("profile", replace(options(folder.parent), **changes), profile_dir=folder)  # type: ignore[arg-type]
    assert isinstance(made, ProfileModel)
    return made


def traced(folder: Path, new: list[int], context: list[int]) -> Trace:
    return TraceGenerator(options(folder.parent).architecture, Mesh(), load(folder)).generate([batch(new, context)])


def microseconds(trace: Trace, name: str) -> float:
    return int(trace.latency_ns[0, rows_named(trace, name)[0]]) / 1e3


def test_operators_are_vidurs(tmp_path: Path) -> None:
    trace = traced(vidur(tmp_path / "v"), [64], [0])
    names = {
        "embedding": "emb", "qkv_proj": "attn_pre_proj", "rotary_emb": "attn_rope", "o_proj": "attn_post_proj",
        "gate_up_proj": "mlp_up_proj", "act_fn": "mlp_act", "down_proj": "mlp_down_proj",
        "final_layernorm": "input_layernorm",
    }  # fmt: skip
    for ours, theirs in names.items():
        assert microseconds(trace, ours) == pytest.approx(vidur_us(theirs, 64), abs=6e-4), ours
    norm = (vidur_us("input_layernorm", 64) + vidur_us("post_attention_layernorm", 64)) / 2 + vidur_us("add", 64)
    assert microseconds(trace, "layernorm") == pytest.approx(norm, abs=6e-4)


def test_without_a_second_norm_the_first_is_taken(tmp_path: Path) -> None:
    trace = traced(vidur(tmp_path / "v", without=("post_attention_layernorm",)), [8], [0])
    norm = vidur_us("input_layernorm", 8) + vidur_us("add", 8)
    assert microseconds(trace, "layernorm") == pytest.approx(norm, abs=6e-4)


def test_lm_head_and_sampler_are_the_rooflines_and_said_so(tmp_path: Path) -> None:
    folder = vidur(tmp_path / "v")
    made = load(folder)
    trace = traced(folder, [1] * 3, [100] * 3)
    architecture = options(tmp_path).architecture
    roofline = make_perf_model("roofline", options(tmp_path))
    other = TraceGenerator(architecture, Mesh(), roofline).generate([batch([1] * 3, [100] * 3)])
    for name in ("lm_head", "sampler"):
        assert microseconds(trace, name) == microseconds(other, name)
    assert microseconds(trace, "qkv_proj") != microseconds(other, "qkv_proj")
    assert made.notes == (
        f"{folder}: Vidur's tables name no device, and are taken for A100-80G's; the roofline times LM head and "
        "sampler, which are not in them",
    )


def test_prompts_and_decodes_are_kernels_of_their_own(tmp_path: Path) -> None:
    folder = vidur(tmp_path / "v")
    trace = traced(folder, [64, 40, 1, 1], [128, 20, 100, 300])
    prompts = vidur_prefill_us(64, 128) + vidur_prefill_us(40, 20)
    expected = prompts + vidur_decode_us(2, 200) + vidur_save_us(106)
    assert microseconds(trace, "attention") == pytest.approx(expected, abs=2e-3)
    trace = traced(folder, [1] * 4, [256] * 4)
    assert microseconds(trace, "attention") == pytest.approx(vidur_decode_us(4, 256) + vidur_save_us(4), abs=6e-4)


def test_older_tables_without_the_cache_save(tmp_path: Path) -> None:
    trace = traced(vidur(tmp_path / "v", save=False), [1] * 4, [256] * 4)
    assert microseconds(trace, "attention") == pytest.approx(vidur_decode_us(4, 256), abs=6e-4)


def test_lookups_are_counted(tmp_path: Path) -> None:
    folder = vidur(tmp_path / "v")
    perf = load(folder)
    generator = TraceGenerator(options(tmp_path).architecture, Mesh(), perf)
    generator.generate([batch([64, 1], [64, 256])])
    assert perf.lookups.counts()["attention"].measured == 2
    generator.generate([batch([1], [5000])])
    assert perf.lookups.counts()["attention"].extrapolated == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("mlp.csv", "time_stats.add.median", "added", "mlp.csv, line 1: .* lacks the column time_stats.add.median"),
        ("mlp.csv", "True,64,1", "True,x,1", "mlp.csv, line 4, num_tokens: .x.; expected a whole number"),
        ("mlp.csv", ",0.0656,", ",-1,", "mlp.csv, line 4, time_stats.mlp_up_proj.median: .-1.; expected milliseconds"),
        ("mlp.csv", ",8,4,256,", ",8,2,256,", r"no rows of small \(n_head 8, n_kv_head 4, n_expanded_embd 512, n_embd"),
        ("mlp.csv", ",1\n", ",2\n", "--npu_num: nothing was measured for 1 tensor-parallel NPUs; measured: 2"),
        ("attention.csv", "FLASHINFER\n", "FLASH\n", "attention_backend: rows of FLASH and FLASHINFER; leave those"),
        ("attention.csv", "batch_size", "batches", "attention.csv, line 1: .* lacks the column batch_size"),
    ],
)
def test_what_is_malformed_or_does_not_fit(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    folder = vidur(tmp_path / "v")
    text = (folder / name).read_text()
    assert old in text
    count = 1 if new == "FLASH\n" else -1
    (folder / name).write_text(text.replace(old, new, count))
    with pytest.raises(UserError, match=said):
        load(folder)


def test_no_prompts_or_no_decodes(tmp_path: Path) -> None:
    folder = vidur(tmp_path / "v")
    path = folder / "attention.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([line for line in lines if ",16,1,1,0," not in line and ",0," + "16" not in line][:10]))
    with pytest.raises(UserError, match="has no decodes of this model"):
        load(folder)


def test_only_sixteen_bits_were_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Vidur measures in 16 bits, not weights of 8 and a KV cache of 16"):
        load(vidur(tmp_path / "v"), precision=Precision(8, 8, 16))


def test_units_of_both_tools_are_told_apart() -> None:
    assert vidur_us("attn_pre_proj", 0) == operator_us("qkv_proj", 0) == 20, "milliseconds there, microseconds here"
