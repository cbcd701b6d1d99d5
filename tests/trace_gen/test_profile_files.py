"""Files of measured tables: what is malformed, what does not fit the run, and which format a folder is in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_mixture import small_mixture
from helpers.small_profile import META, add_skew, bundle, small_model, vidur

from foundation.errors import UserError
from trace_gen.hardware import load_hardware
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModel, PerfModelOptions, make_perf_model
from trace_gen.perf_models.profile.formats import format_of, profile_formats
from trace_gen.precision import Precision


def options(folder: Path, **changes: object) -> PerfModelOptions:
    plain = PerfModelOptions(load_model(small_model(folder)), load_hardware("RTX4090"))
    return replace(plain, **changes)  # type: ignore[arg-type]


def load(folder: Path, **changes: object) -> PerfModel:
    return make_perf_model("profile", options(folder.parent, **changes), profile_dir=folder)


def edited(path: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")


def cell(line: int, column: int, text: str) -> Callable[[list[str]], list[str]]:
    def edit(lines: list[str]) -> list[str]:
        cells = lines[line - 1].split(",")
        cells[column] = text
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return edit


def column(name: str) -> Callable[[list[str]], list[str]]:
    """Take a column away."""

    def edit(lines: list[str]) -> list[str]:
        place = lines[0].split(",").index(name)
        return [",".join(part for at, part in enumerate(line.split(",")) if at != place) for line in lines]

    return edit


MALFORMED = [
    ("tp1/dense.csv", column("tokens"), "dense.csv, line 1: the table of measured times lacks the column tokens"),
    ("tp1/dense.csv", cell(3, 2, "-4"), 'dense.csv, line 3, time_us: "-4"; expected microseconds above 0'),
    ("tp1/dense.csv", cell(3, 2, "0"), 'dense.csv, line 3, time_us: "0"; expected microseconds above 0'),
    ("tp1/dense.csv", cell(4, 2, "nan"), 'dense.csv, line 4, time_us: "nan"; expected microseconds above 0'),
    ("tp1/dense.csv", cell(4, 2, ""), "dense.csv, line 4, time_us"),
    ("tp1/dense.csv", cell(4, 1, "6.5"), 'dense.csv, line 4, tokens: "6.5"; expected a whole number from 0 to'),
    ("tp1/dense.csv", cell(4, 1, "1_0"), 'dense.csv, line 4, tokens: "1_0"; expected a whole number from 0 to'),
    ("tp1/dense.csv", cell(4, 1, "8"), "dense.csv, line 4: tokens 8 of embedding comes twice; leave one of the rows"),
    ("tp1/dense.csv", cell(4, 1, "5"), "dense.csv, line 4: tokens 5 of embedding comes after larger sizes; sort the"),
    ("tp1/dense.csv", lambda lines: lines[:1], "dense.csv: the table of measured times has no rows"),
    ("tp1/dense.csv", lambda lines: [], "dense.csv, line 1: the table of measured times lacks the column layer, tok"),
    (
        "tp1/dense.csv",
        lambda lines: [*lines[:5], "act_fn", *lines[5:]],
        "line 6: 1 columns; expected 3, as in line 1",
    ),
    ("tp1/dense.csv", lambda lines: [*lines[:5], "act_fn,\0", *lines[5:]], "dense.csv"),
    ("tp1/per_sequence.csv", column("sequences"), "per_sequence.csv, line 1: the table of measured times lacks"),
    ("tp1/attention.csv", column("kv_decode"), "attention.csv, line 1: the table of measured times lacks the colu"),
    ("tp1/attention.csv", cell(9, 3, "x"), 'attention.csv, line 9, kv_decode: "x"; expected a whole number'),
    ("tp1/attention.csv", lambda lines: [*lines, lines[-1]], "kv_prefill 512, n_decode 16, kv_decode 1024 comes twice"),
    (
        "tp1/attention.csv",
        lambda lines: [line for line in lines if not line.startswith("0,")],
        "attention.csv: the table of measured times has no decodes without a prompt; measure them, too",
    ),
    (
        "tp1/attention.csv",
        lambda lines: [line for line in lines if line.startswith(("p", "0,"))],
        "attention.csv: the table of measured times has no prompts without decodes; measure them, too",
    ),
    (
        "tp1/attention.csv",
        lambda lines: [line for line in lines if line.startswith(("p", "0,")) or ",0,0," in line],
        "attention.csv: the table of measured times has no decodes beside a prompt; measure them, too",
    ),
    ("tp1/skew.csv", column("kv_big"), "skew.csv, line 1: the table of measured times lacks the column kv_big"),
    ("tp1/skew.csv", cell(2, 5, "-1"), 'skew.csv, line 2, t_skew_us: "-1"; expected microseconds above 0'),
    ("tp1/skew.csv", cell(2, 0, "nan"), 'skew.csv, line 2, n: "nan"; expected a whole number from 1'),
    ("tp1/skew.csv", cell(2, 0, "0"), 'skew.csv, line 2, n: "0"; expected a whole number from 1'),
    ("tp1/skew.csv", cell(2, 3, "-3"), 'skew.csv, line 2, kv_mean: "-3"; expected a number from 0'),
    ("meta.yaml", lambda lines: ["hardware: 5"], "meta.yaml"),
    ("meta.yaml", lambda lines: ["a: ["], "meta.yaml"),
]


@pytest.mark.parametrize(("name", "edit", "said"), MALFORMED, ids=[said for _, _, said in MALFORMED])
def test_malformed_tables_are_told_with_file_and_row(
    tmp_path: Path, name: str, edit: Callable[[list[str]], list[str]], said: str
) -> None:
    folder = bundle(tmp_path / "b", meta={"skew_fit": {"enabled": True}})
    add_skew(folder, 0.01, 0.01)
    load(folder)
    edited(folder / name, edit)
    with pytest.raises(UserError) as refused:
        load(folder)
    told = str(refused.value)
    assert said in told and told.isprintable()
    assert str(folder / name) in told


@pytest.mark.parametrize("name", ["dense.csv", "per_sequence.csv", "attention.csv"])
def test_a_file_that_lacks(tmp_path: Path, name: str) -> None:
    folder = bundle(tmp_path / "b")
    (folder / "tp1" / name).unlink()
    with pytest.raises(UserError, match=f"{name}: the table of measured times does not exist"):
        load(folder)


def test_a_degree_that_was_not_measured(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", degrees=(1, 2))
    with pytest.raises(UserError, match="--npu_num: nothing was measured for 4 tensor-parallel NPUs; measured: 1, 2"):
        load(folder, tensor=4)


def test_an_operator_that_was_not_measured(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", without=("o_proj", "lm_head"))
    with pytest.raises(UserError, match=r"--profile_dir: .*: nothing was measured of o_proj, lm_head"):
        load(folder)


def test_experts_that_were_not_measured(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", experts=True)
    (folder / "tp1" / "moe.csv").unlink()
    path, _ = small_mixture(tmp_path)
    with pytest.raises(UserError, match=r"moe\.csv: the table of measured times does not exist"):
        load(folder, architecture=load_model(path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware": load_hardware("A100")}, "meta.yaml, hardware: RTX4090, but A100"),
        ({"precision": Precision(8, 8, 8)}, "meta.yaml, variant: 'bf16', but weights of 8 bits and a KV cache of 8"),
        ({"precision": Precision(16, 16, 8)}, "meta.yaml, variant: 'bf16', but weights of 16 bits and a KV cache of 8"),
        ({"architecture": load_model("deepseek-ai/DeepSeek-V2-Lite")}, "has latent attention, which tables of this"),
    ],
)
def test_what_does_not_fit_the_run(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as refused:
        load(bundle(tmp_path / "b"), **changes)
    assert said in str(refused.value)


def test_a_variant_is_the_width_of_numbers(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", meta={"variant": "bf16-kvfp8"})
    load(folder, precision=Precision(16, 16, 8))
    load(bundle(tmp_path / "c", meta={"variant": "int3-odd"}))


def test_the_sizes_of_another_model(tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256}
    run = {"engine_effective": {"hf_overrides": sizes}}
    load(bundle(tmp_path / "a", meta=run, degrees=(1, 2)))
    with pytest.raises(UserError, match="engine_effective: num_attention_heads 4 was measured, but small has 8"):
        load(bundle(tmp_path / "b", meta=run))


@pytest.mark.parametrize("place", ["b", "."])
def test_a_catalogue_of_another_model(tmp_path: Path, place: str) -> None:
    folder = bundle(tmp_path / "b")
    catalogue = tmp_path / place / "arch_llama.yaml"
    blocks = {"prologue": ["embedding"], "pre_attn": ["layernorm", "qkv_proj", "attention"], "head": ["lm_head"]}
    catalogue.write_text(json.dumps({"sequence": blocks}))
    load(folder)
    catalogue.write_text(json.dumps({"sequence": blocks | {"post_attn": ["qk_norm", "o_proj"]}}))
    with pytest.raises(UserError, match="the block catalogue has qk_norm, which the model has not"):
        load(folder)


def test_formats_are_recognised_by_content(tmp_path: Path) -> None:
    found = {name: profile_formats.get(name) for name in profile_formats}
    assert set(found) == {"kernels", "llmservingsim", "llmservingsim_v0", "vidur"}
    assert format_of(bundle(tmp_path / "b")) is found["llmservingsim"]
    assert format_of(vidur(tmp_path / "v")) is found["vidur"]
    table = tmp_path / "t" / "any.csv"
    table.parent.mkdir()
    table.write_text("hardware,model,layer_name,input,kv_cache,latency(ns)\nRTX3090,m,attn,1,0,5\n")
    assert format_of(table) is format_of(table.parent) is found["llmservingsim_v0"]
    assert found["llmservingsim_v0"].device(table.parent) == "RTX3090"
    assert found["llmservingsim"].device(tmp_path / "b") == META["hardware"]
    assert found["vidur"].device(tmp_path / "v") is None


def test_a_folder_without_a_profile(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError,
        match=r"holds no profile; expected a folder with kernels\.yaml .*, or a folder with meta\.yaml .*, or one CSV",
    ):
        load(tmp_path / "empty")
    with pytest.raises(UserError, match="--profile_dir: there is no folder"):
        load(tmp_path / "none")
    for name in ("a.csv", "b.csv"):
        (tmp_path / "empty" / name).write_text("hardware,model,layer_name,input,kv_cache,latency(ns)\n")
    with pytest.raises(UserError, match="holds no profile"):
        load(tmp_path / "empty")


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--profile_dir: profile needs measured tables"):
        make_perf_model("profile", options(tmp_path))
