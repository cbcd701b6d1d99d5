"""Files with anything in them are read, or refused with one clear error; never a traceback."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import QWEN, batch

from foundation.errors import UserError
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.models import load_model, shipped_models
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.precision import Arithmetic

Loaded = TypeVar("Loaded")
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MODELS = [json.loads(shipped_models()[name].read_text()) for name in ("gpt3-7b", "facebook/opt-6.7b", "opt-175b")]
MODELS += [json.loads(shipped_models()[name].read_text()) for name in ("meta-llama/Llama-3.1-8B", QWEN)]
MODELS += [json.loads(shipped_models()[name].read_text()) for name in ("facebook/opt-350m", "google/gemma-2-2b")]
MODELS += [json.loads(shipped_models()[name].read_text()) for name in ("tiiuae/falcon-rw-1b", "zai-org/chatglm3-6b")]
DEVICE = json.loads((HARDWARE_FOLDER / "RTX4090.json").read_text())


def written(folder: str, text: str) -> str:
    path = Path(folder) / "config.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


PLAUSIBLE = st.integers(1, 8).map(lambda power: 2**power) | st.floats(0.25, 4) | st.booleans() | st.none()
CHANGES = st.lists(st.tuples(st.integers(0, 14), PLAUSIBLE | ANYTHING), max_size=2) | st.lists(
    st.tuples(st.integers(0, 14), PLAUSIBLE), max_size=2
)


def changed(base: dict[str, object], changes: list[tuple[int, object]]) -> dict[str, object]:
    names = list(base)
    return base | {names[index % len(names)]: value for index, value in changes}


def loaded(load: Callable[[str], Loaded], config: dict[str, object], counts: Counter[str]) -> Loaded | None:
    """Return what `load` makes of `config`, or None where it is refused in one line that names the file."""
    with TemporaryDirectory() as folder:
        try:
            found = load(written(folder, json.dumps(config)))
        except UserError as error:
            assert "config.json" in str(error) and "\n" not in str(error)
            counts["refused"] += 1
            return None
    counts["loaded"] += 1
    return found


def test_model_files() -> None:
    """What loads makes a trace; at least a sixth of the files load, and at least a third are refused."""
    counts: Counter[str] = Counter()

    @SETTINGS
    @given(base=st.sampled_from(MODELS), changes=CHANGES)
    def check(base: dict[str, object], changes: list[tuple[int, object]]) -> None:
        architecture = loaded(load_model, changed(base, changes), counts)
        if architecture is not None:
            perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware("A100")))
            trace = TraceGenerator(architecture, Mesh(), perf).generate([batch([3, 1], [0, 7])])
            assert (trace.latency_ns >= 1).all()

    check()
    assert counts["loaded"] >= 25 and counts["refused"] >= 50, counts


def test_quantization_configs() -> None:
    """Any value in any field of the four methods' configs."""
    counts: Counter[str] = Counter()
    tensors = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
    group = {"targets": ["Linear"], "weights": tensors, "input_activations": None}
    configs: list[dict[str, object]] = [
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "modules_to_not_convert": ["gate"]},
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False, "lm_head": True},
        {"quant_method": "compressed-tensors", "config_groups": {"a": group}, "ignore": ["lm_head"]},
    ]

    @SETTINGS
    @given(base=st.sampled_from(configs), changes=CHANGES, inner=st.booleans())
    def check(base: dict[str, object], changes: list[tuple[int, object]], inner: bool) -> None:
        config = changed(base, changes)
        if inner and base is configs[3]:
            config = base | {"config_groups": {"a": group | {"weights": changed(dict(tensors), changes)}}}
        architecture = loaded(load_model, MODELS[3] | {"quantization_config": config}, counts)
        if architecture is not None:
            assert ModelMemory(architecture, Mesh(2)).max_rank_weight_bytes > 0

    check()
    assert counts["loaded"] >= 25 and counts["refused"] >= 50, counts


def test_hardware_files() -> None:
    counts: Counter[str] = Counter()

    @SETTINGS
    @given(changes=CHANGES)
    def check(changes: list[tuple[int, object]]) -> None:
        hardware = loaded(load_hardware, changed(DEVICE, changes), counts)
        if hardware is not None:
            assert hardware.rate(Arithmetic.HALF) > 0 and math.isfinite(hardware.memory_bandwidth)

    check()
    assert counts["loaded"] >= 25 and counts["refused"] >= 50, counts


@SETTINGS
@given(text=st.text(max_size=60) | st.just("[" * 100_000))
def test_files_that_are_not_objects(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = written(folder, text)
        for load in (load_model, load_hardware):
            with pytest.raises(UserError):
                load(path)


@SETTINGS
@given(
    rows=st.lists(st.lists(st.sampled_from(["RTX4090", "gpt3-7b", "attn", "1", "-3", "x", "1e9", "", '"']), max_size=7))
)
def test_tables(rows: list[list[str]]) -> None:
    text = "hardware,model,layer_name,input,kv_cache,latency(ns)\n" + "\n".join(",".join(row) for row in rows)
    options = PerfModelOptions(load_model("gpt3-7b"), load_hardware("RTX4090"))
    with TemporaryDirectory() as folder, pytest.raises(UserError):
        make_perf_model(
            "table_v0",
            PerfModelOptions(options.architecture, options.hardware),
            perf_table=Path(written(folder, text)),
        )


def test_binary_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(np.random.default_rng(0).bytes(300))
    for load in (load_model, load_hardware):
        with pytest.raises(UserError, match="is not UTF-8 text"):
            load(str(path))
