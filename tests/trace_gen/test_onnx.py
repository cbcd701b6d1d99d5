"""Decoders from ONNX: what a graph says is what a config.json of the same model says, in all columns of its traces."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper
from onnx.checker import check_model
from onnx.reference import ReferenceEvaluator
from onnx_cases import Shape, gpt2, llama, refused, save
from trace_cases import batch, make_generator

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.models import load_model, load_onnx_model
from trace_gen.onnx.branches import Examiner
from trace_gen.onnx.decoder import OPEN_POSITIONS, read_decoder
from trace_gen.onnx.evaluation import Evaluation
from trace_gen.precision import Arithmetic
from trace_gen.quantization import Scheme
from trace_gen.trace import OperatorClass, Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

BATCH = batch([7, 1, 1], [5, 20, 301], [1, 1, 0])
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
SAME = {
    "with a cache": {},
    "without": {"cache": False},
    "tied": {"tied": True},
    "biases": {"qkv_bias": True},
    "normalised heads": {"qk_norm": True},
    "one projection": {"fused_qkv": True, "fused_up": True},
    "one projection with bias": {"fused_qkv": True, "qkv_bias": True},
    "matrices turned": {"weights": "turned"},
    "fused norms": {"norms": "fused", "opset": 23},
    "onnxruntime's norms": {"norms": "simplified"},
    "norms with the addition": {"norms": "skip"},
    "onnxruntime's attention": {"fused_attention": "GroupQueryAttention"},
    "its attention, packed": {"fused_attention": "packed", "fused_qkv": True},
    "its attention of many heads": {"fused_attention": "MultiHeadAttention", "kv_heads": 6},
    "ONNX's attention": {"fused_attention": "Attention", "opset": 23},
    "one KV head": {"kv_heads": 1},
    "heads wider than the hidden state": {"heads": 8, "head_dim": 16},
    "fixed sizes": {"cache": False, "batch": 1, "tokens": 7},
    "32 bits": {"dtype": FLOAT},
    "weights inside": {"external": False},
}


def from_config(tmp_path: Path, config: dict[str, Any]) -> ModelArchitecture:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return load_model(str(path))


def from_onnx(tmp_path: Path, **changes: Any) -> ModelArchitecture:
    return load_onnx_model(save(tmp_path, llama(**changes)))


def alike(one: Trace, other: Trace) -> bool:
    """Whether two traces have the same rows, whatever the model is called."""
    pairs = [(getattr(one, column.name), getattr(other, column.name)) for column in fields(Trace)]
    rows = [(a, b) for a, b in pairs if isinstance(a, np.ndarray)]
    assert len(rows) > 20
    return one.op_names == other.op_names and all(np.array_equal(a, b) for a, b in rows)


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME.keys())
def test_a_graph_is_the_model_that_its_config_describes(tmp_path: Path, changes: dict[str, Any]) -> None:
    made, described = from_onnx(tmp_path, **changes), from_config(tmp_path, Shape(**changes).config())
    bits = 32 if changes.get("dtype") == FLOAT else 16
    positions = 512 if "fused_attention" in changes else OPEN_POSITIONS
    same = replace(described, name="tiny", model_type="onnx", bits=bits, max_position=positions)
    assert made == same


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("cache", [True, False])
def test_its_traces_are_those_of_the_config(tmp_path: Path, tensor: int, pipeline: int, cache: bool) -> None:
    models = from_onnx(tmp_path, cache=cache), from_config(tmp_path, Shape().config())
    one, other = (make_generator(model, tensor, pipeline) for model in models)
    assert alike(one.generate([BATCH]), other.generate([BATCH]))
    assert not alike(one.generate([BATCH]), other.generate([batch([8, 1, 1], [5, 20, 301])]))
    stages = range(pipeline)
    assert [one.memory.weight_bytes(at) for at in stages] == [other.memory.weight_bytes(at) for at in stages]
    assert one.memory.kv_groups == other.memory.kv_groups


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Draw decoders, some of whose sizes may be alike by chance."""
    kv_heads = draw(st.integers(1, 4))
    fused = draw(st.sampled_from(["", "", "GroupQueryAttention"]))
    return {
        "kv_heads": kv_heads,
        "heads": kv_heads * draw(st.integers(1, 4)),
        "head_dim": 2 * draw(st.integers(2, 9)),
        "hidden": draw(st.integers(8, 70)),
        "kinds": tuple(draw(st.lists(st.sampled_from([24, 40, 64]), min_size=1, max_size=5))),
        "vocab": draw(st.integers(9, 80)),
        "cache": draw(st.booleans()),
        "tied": draw(st.booleans()),
        "fused_up": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
        "fused_attention": fused,
        "norms": draw(st.sampled_from(["pieces", "simplified", "skip"])),
        "weights": draw(st.sampled_from(["float", "turned"])),
    }


@settings(max_examples=40, deadline=None, derandomize=True)
@given(changes=shapes())
def test_whatever_its_sizes(changes: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        made = from_onnx(Path(folder), **changes)
    shape = Shape(**changes)
    assert [layer.mlp.inner for layer in made.layers] == list(shape.kinds)
    assert (made.hidden_size, made.vocab_size, made.tie_word_embeddings) == (shape.hidden, shape.vocab, shape.tied)
    attention = {layer.attention for layer in made.layers}
    assert attention == {GroupedAttention(shape.heads, shape.kv_heads, shape.head_dim, qkv_bias=shape.qkv_bias)}


def test_work_and_weights_are_those_of_the_graph(tmp_path: Path) -> None:
    """Counted in the file itself: two operations and one number for each element of a matrix, two bytes a number."""
    model = llama()
    held = {tensor.name: tensor.dims for tensor in model.graph.initializer if tensor.data_type == HALF}
    operators = model_operators(load_onnx_model(save(tmp_path, model)))
    flops = sum(row.flops for row in operators if row.kind is OperatorClass.GEMM)
    layers = [dims for name, dims in held.items() if len(dims) == 2 and name != "embed_tokens.weight"]
    of_layers = sum(2 * dims[0] * dims[1] for dims in layers[:-1])
    assert (held["lm_head.weight"], layers[-1]) == ([48, 97], [48, 97])
    assert 4 * (flops - 2 * 48 * 97) == of_layers
    memory = ModelMemory(load_onnx_model(save(tmp_path, model)), Mesh())
    assert memory.weight_bytes(0) == 2 * sum(int(np.prod(dims)) for dims in held.values())
    (kept,) = memory.kv_groups
    caches = [entry.type.tensor_type.shape.dim for entry in model.graph.input if "past" in entry.name]
    assert kept.bytes_per_token == (sum(2 * dims[1].dim_value * dims[3].dim_value for dims in caches),)


def test_traces_keep_the_rules(tmp_path: Path) -> None:
    for model in (
        from_onnx(tmp_path),
        from_onnx(tmp_path, weights="qdq", opset=19),
        load_onnx_model(save(tmp_path, gpt2())),
    ):
        generator = make_generator(model, 2, 2)
        facts = ModelFacts(model, generator.mesh, generator.precision, (BATCH,))
        outcome = run_rules(of_trace("test", generator.generate([BATCH]), facts))
        assert (outcome.violations, outcome.skipped) == ({}, [])


def test_the_cases_are_decoders_that_run(tmp_path: Path) -> None:
    """The graphs of these tests are right ones: ONNX's own check takes them, and its reference computes logits."""
    model = llama(external=False, kinds=(16, 16))
    check_model(model)
    past = {
        f"past_key_values.{at}.{part}": np.zeros((2, 2, 3, 8), np.float16) for at in (0, 1) for part in ("key", "value")
    }
    ids = np.zeros((2, 5), np.int64)
    given = {"input_ids": ids, "position_ids": ids, "attention_mask": np.ones((2, 8), np.int64), **past}
    logits, *present = ReferenceEvaluator(model).run(None, given)
    assert logits.shape == (2, 5, 97) and {one.shape for one in present} == {(2, 2, 8, 8)}
    check_model(gpt2())
    assert ReferenceEvaluator(onnx_cases.gpt2()).run(None, {"input_ids": ids})[0].shape == (2, 5, 61)


def test_gpt2_with_one_projection_and_tied_embeddings(tmp_path: Path) -> None:
    made = load_onnx_model(save(tmp_path, gpt2()))
    described = from_config(
        tmp_path,
        {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64, "vocab_size": 61},
    )
    assert made == replace(described, name="tiny", model_type="onnx", bits=32)
    assert made.tie_word_embeddings and made.position_rows == 64 == made.max_position
    assert parameter_count(made) == 61 * 32 + 64 * 32 + 3 * (12 * 32 * 32 + 13 * 32) + 2 * 32


class TestTheBlockIsWorkedOutOnce:
    @pytest.fixture
    def examined(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        seen: list[object] = []
        examine = Examiner.examine

        def counted(self: Examiner, branch: Any) -> Any:
            seen.append(branch)
            return examine(self, branch)

        monkeypatch.setattr(Examiner, "examine", counted)
        return seen

    @pytest.mark.parametrize("layers", [1, 2, 40])
    def test_however_many_layers(self, tmp_path: Path, examined: list[object], layers: int) -> None:
        made = from_onnx(tmp_path, kinds=(80,) * layers)
        assert (made.num_layers, len(made.layer_kinds), len(examined)) == (layers, 1, 2)

    def test_of_two_kinds(self, tmp_path: Path, examined: list[object]) -> None:
        made = from_onnx(tmp_path, kinds=(80, 80, 96, 80, 96, 96))
        assert [(run.repeats, run.layer.mlp.inner) for run in made.runs] == [(2, 80), (1, 96), (1, 80), (2, 96)]
        assert len(examined) == 3
        assert read_decoder(tmp_path / "tiny.onnx").examined == 3

    def test_and_nothing_else_is_evaluated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = []
        for layers in (2, 40):
            made: list[Evaluation] = []
            monkeypatch.setattr(
                "trace_gen.onnx.decoder.Evaluation",
                lambda *given, kept=made: kept.append(Evaluation(*given)) or kept[0],
            )
            from_onnx(tmp_path, kinds=(80,) * layers)
            counts.append(made[0].evaluated)
        assert counts[0] == counts[1] > 10


class TestQuantised:
    """Matrices of 48 x 48 for queries and outputs, 48 x 16 for keys and values, 48 x 80 for the MLP, as engines store
    them, those of one input together; scales of 16 bits."""

    MATRICES = ((48, 48 + 2 * 16), (48, 48), (48, 80 + 80), (80, 48))
    NORMS = 2 * 48
    OUTSIDE = 2 * 97 * 48 + 48

    @pytest.mark.parametrize(
        ("how", "opset", "expected", "stored"),
        [
            ("tensor", 19, Scheme(8), lambda k, n: k * n + 2),
            ("qdq", 19, Scheme(8, (None, 1), zero_bits=8), lambda k, n: k * n + 3 * n),
            ("blocks", 21, Scheme(4, (8, 1)), lambda k, n: k * n // 2 + 2 * n * k // 8),
            ("nbits", 18, Scheme(4, (16, 1)), lambda k, n: k * n // 2 + 2 * n * k // 16),
        ],
    )
    def test_weights_are_counted_as_stored(
        self, tmp_path: Path, how: str, opset: int, expected: Scheme, stored: Callable[[int, int], int]
    ) -> None:
        made = from_onnx(tmp_path, weights=how, opset=opset)
        assert made.quantization is not None and made.quantization.method == "onnx"
        assert dict(made.layers[0].schemes)["q_proj"] == expected and "lm_head" not in dict(made.end_schemes)
        weights = 4 * sum(stored(*dims) for dims in self.MATRICES)
        assert ModelMemory(made, Mesh()).weight_bytes(0) == weights + 2 * (4 * self.NORMS + self.OUTSIDE)

    def test_queries_alone_are_refused(self, tmp_path: Path) -> None:
        model = llama(weights="tensor", opset=19)
        plain(model, "k_proj")
        refused(tmp_path, model, "only some of q_proj, k_proj, v_proj are quantised: engines store them as one")

    def test_some_layers_alone_are_refused(self, tmp_path: Path) -> None:
        model = llama(weights="tensor", opset=19)
        plain(model, "layers.1.self_attn.o_proj")
        refused(tmp_path, model, "o_proj in some layers quantised in several ways: not modelled; quantise all alike")

    def test_a_role_may_be_left_out(self, tmp_path: Path) -> None:
        model = llama(weights="tensor", opset=19)
        plain(model, "down_proj")
        made = load_onnx_model(save(tmp_path, model))
        assert {role for role, _ in made.layers[0].schemes} == {
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
        }

    def test_activations_in_8_bits_are_multiplied_in_8_bits(self, tmp_path: Path) -> None:
        model = llama(weights="tensor", opset=19)
        for node in [node for node in model.graph.node if node.op_type == "MatMul" and "_proj" in node.name]:
            at, scale = list(model.graph.node).index(node), f"{node.name}.in"
            model.graph.initializer.append(helper.make_tensor(scale, HALF, [], b"\0\0", raw=True))
            quantised, back = f"{node.name}.q", f"{node.name}.dq"
            model.graph.node.insert(at, helper.make_node("DequantizeLinear", [quantised, scale], [back]))
            model.graph.node.insert(at, helper.make_node("QuantizeLinear", [node.input[0], scale], [quantised]))
            model.graph.node[at + 2].input[0] = back
        made = load_onnx_model(save(tmp_path, model))
        assert dict(made.layers[0].schemes)["q_proj"] == Scheme(8, arithmetic=Arithmetic.EIGHT)

    def test_an_engine_may_quantise_what_is_not(self, tmp_path: Path) -> None:
        path = save(tmp_path, llama())
        made = load_onnx_model(path, "fp8").quantization
        assert made is not None and made.online and made.bits == "8"
        assert load_onnx_model(path).quantization is None


def plain(model: ModelProto, part: str) -> None:
    """Take the quantisation off the matrices whose names hold `part`."""
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and part in node.input[0]:
            node.op_type = "Identity"
            del node.input[1:]
    for tensor in model.graph.initializer:
        if part in tensor.name and tensor.data_type == TensorProto.INT8:
            tensor.data_type = HALF
            tensor.raw_data = b""
            tensor.data_location = TensorProto.EXTERNAL


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, llama())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"needs the onnx package, which is not installed; install it: pip install"):
        load_onnx_model(path)


def test_the_name_is_the_files_or_its_folders(tmp_path: Path) -> None:
    (tmp_path / "TinyLlama").mkdir()
    assert load_onnx_model(save(tmp_path / "TinyLlama", llama(), "model.onnx")).name == "TinyLlama"
    assert load_onnx_model(save(tmp_path, llama(), "tiny-llama.onnx")).name == "tiny-llama"
