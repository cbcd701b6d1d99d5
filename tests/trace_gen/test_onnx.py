"""Decoders from ONNX: what a graph says is what a config.json of the same model says, in all columns of its traces."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_cases
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.checker import check_model
from onnx.reference import ReferenceEvaluator
from onnx_cases import Shape, gpt2, llama, save
from trace_cases import batch, make_generator, only_layer

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.models import load_model, load_onnx_model
from trace_gen.onnx.branches import Examiner
from trace_gen.onnx.decoder import OPEN_POSITIONS, read_decoder
from trace_gen.onnx.evaluation import Evaluation
from trace_gen.precision import Arithmetic
from trace_gen.quantization import Quantization
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
            ("tensor", 19, Quantization("onnx", 8), lambda k, n: k * n + 2),
            ("qdq", 19, Quantization("onnx", 8, (None, 1), zero_bits=8), lambda k, n: k * n + 3 * n),
            ("blocks", 21, Quantization("onnx", 4, (8, 1)), lambda k, n: k * n // 2 + 2 * n * k // 8),
            ("nbits", 18, Quantization("onnx", 4, (16, 1)), lambda k, n: k * n // 2 + 2 * n * k // 16),
        ],
    )
    def test_weights_are_counted_as_stored(
        self, tmp_path: Path, how: str, opset: int, expected: Quantization, stored: Callable[[int, int], int]
    ) -> None:
        made = from_onnx(tmp_path, weights=how, opset=opset)
        assert made.quantization == expected
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
        quantized = load_onnx_model(save(tmp_path, model)).quantization
        assert quantized is not None and quantized.plain == {"router", "lm_head", "down_proj"}

    def test_activations_in_8_bits_are_multiplied_in_8_bits(self, tmp_path: Path) -> None:
        model = llama(weights="tensor", opset=19)
        for node in [node for node in model.graph.node if node.op_type == "MatMul" and "_proj" in node.name]:
            at, scale = list(model.graph.node).index(node), f"{node.name}.in"
            model.graph.initializer.append(helper.make_tensor(scale, HALF, [], b"\0\0", raw=True))
            quantised, back = f"{node.name}.q", f"{node.name}.dq"
            model.graph.node.insert(at, helper.make_node("DequantizeLinear", [quantised, scale], [back]))
            model.graph.node.insert(at, helper.make_node("QuantizeLinear", [node.input[0], scale], [quantised]))
            model.graph.node[at + 2].input[0] = back
        assert load_onnx_model(save(tmp_path, model)).quantization == Quantization(
            "onnx", 8, arithmetic=Arithmetic.EIGHT
        )

    def test_an_engine_may_quantise_what_is_not(self, tmp_path: Path) -> None:
        path = save(tmp_path, llama())
        made = load_onnx_model(path, "fp8").quantization
        assert made is not None and made.online and made.bits == 8
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


def refused(tmp_path: Path, model: ModelProto, what: str) -> None:
    path = save(tmp_path, model)
    with pytest.raises(UserError) as caught:
        load_onnx_model(path)
    assert what in str(caught.value) and str(caught.value).startswith(f"{path}")


def node_named(model: ModelProto, part: str, op: str = "") -> Any:
    return next(node for node in model.graph.node if part in node.name and node.op_type.startswith(op))


def before(model: ModelProto, node: Any, op: str, at: int = 0, **attributes: Any) -> None:
    """Put a node of kind `op` before an input of `node`."""
    place, name = list(model.graph.node).index(node), f"put/{op}"
    node.input[at], source = name, node.input[at]
    model.graph.node.insert(place, helper.make_node(op, [source], [name], name=f"/put_{op}", **attributes))


class TestRefused:
    """Work that an architecture cannot say, each with the node that does it."""

    def test_soft_capped_scores(self, tmp_path: Path) -> None:
        model = llama()
        before(model, node_named(model, "softmax"), "Tanh")
        what = (
            "node '/put_Tanh' (Tanh): Tanh between the scores of attention and their softmax is not modelled (part of "
            "soft-capping?)"
        )
        refused(tmp_path, model, what)

    def test_soft_capped_logits(self, tmp_path: Path) -> None:
        model = llama()
        before(model, node_named(model, "/cast"), "Tanh")
        refused(tmp_path, model, "Tanh between the LM head and the logits is not modelled")

    @pytest.mark.parametrize("op", ["TopK", "Conv", "Selu"])
    def test_what_no_mlp_has(self, tmp_path: Path, op: str) -> None:
        model = llama()
        node = node_named(model, "down_proj", "MatMul")
        before(model, node, "Selu")
        model.graph.node[list(model.graph.node).index(node) - 1].op_type = op
        reasons = {"TopK": "a mixture of experts", "Conv": "a convolution"}
        told = f"{op} between the projections of an MLP is not modelled"
        told += f" (part of {reasons[op]}?)" if op in reasons else ""
        if op == "Selu":
            refused(tmp_path, model, told)
        else:
            refused(tmp_path, model, "lacks inputs or outputs")
            model.graph.node[list(model.graph.node).index(node) - 1].input.append("position_ids")
            refused(tmp_path, model, told)

    def test_post_norm_blocks(self, tmp_path: Path) -> None:
        model = llama(norms="fused", opset=23)
        residual = node_named(model, "layers.0/residual_", "Add")
        residual.input[0] = node_named(model, "RMSNormalization").output[0]
        refused(tmp_path, model, "(Add): adds a branch to something that is made of the residual stream")

    def test_attention_and_mlp_side_by_side(self, tmp_path: Path) -> None:
        model = llama(norms="fused", opset=23)
        norms = [node for node in model.graph.node if node.op_type == "RMSNormalization"]
        for node in model.graph.node:
            node.input[:] = [norms[0].output[0] if name == norms[1].output[0] else name for name in node.input]
        refused(tmp_path, model, "does not read the hidden state just before it (attention and MLP side by side)")

    def test_a_norm_on_the_way_out(self, tmp_path: Path) -> None:
        model = llama()
        before(model, node_named(model, "layers.2/residual_", "Add"), "Sqrt", at=1)
        refused(tmp_path, model, "Sqrt before it is added to the hidden state by node '/layers.2/residual_")

    def test_no_norm(self, tmp_path: Path) -> None:
        model = llama(norms="fused", opset=23)
        for node in model.graph.node:
            if node.op_type == "RMSNormalization":
                node.op_type = "Identity"
                del node.input[1:], node.attribute[:]
                break
        refused(tmp_path, model, "no norm before attention: one is expected")

    def test_two_norms(self, tmp_path: Path) -> None:
        model = llama(norms="fused", opset=23)
        first = node_named(model, "RMSNormalization")
        again = helper.make_node("RMSNormalization", [first.input[0], first.input[1]], ["again"], name="/again")
        model.graph.node.insert(list(model.graph.node).index(first), again)
        node_named(model, "layers.0.self_attn.k_proj", "MatMul").input[0] = "again"
        refused(tmp_path, model, "2 norms before attention: one for all projections is expected")

    def test_a_low_rank_projection(self, tmp_path: Path) -> None:
        model = llama(norms="fused", opset=23)
        source = node_named(model, "layers.0.self_attn.q_proj", "MatMul").output[0]
        node_named(model, "layers.0.self_attn.k_proj", "MatMul").input[0] = source
        refused(tmp_path, model, "not the normalised hidden state (a low-rank projection?): not modelled")

    def test_attention_to_something_else(self, tmp_path: Path) -> None:
        model = llama()
        node_named(model, "layers.0.self_attn/scores", "MatMul").input[1] = "past_key_values.0.key"
        del model.graph.output[1:]
        refused(tmp_path, model, "(Softmax): a softmax of something other than the product of queries and keys")
        model = llama()
        node_named(model, "layers.0.self_attn.o_proj", "MatMul").input[1] = "past_key_values.0.key"
        refused(tmp_path, model, "multiplies what depends on the tokens by what is neither that nor a weight")

    def test_a_window_and_a_cap_of_fused_attention(self, tmp_path: Path) -> None:
        model = llama(fused_attention="GroupQueryAttention")
        for node in model.graph.node:
            if node.op_type == "GroupQueryAttention":
                node.attribute.append(helper.make_attribute("local_window_size", 128))
        assert only_layer(load_onnx_model(save(tmp_path, model)))[0].window == 128
        node_named(model, "attention", "Group").attribute.append(helper.make_attribute("softcap", 30.0))
        refused(tmp_path, model, "(GroupQueryAttention): softcap 30.0 is not modelled")

    def test_an_mlp_of_another_form(self, tmp_path: Path) -> None:
        model = llama()
        node = node_named(model, "layers.0.mlp.up_proj", "MatMul")
        node.input[1] = node_named(model, "layers.0.self_attn.q_proj", "MatMul").input[1]
        refused(tmp_path, model, "takes 80 elements, but the projections before it make [80, 48]")

    def test_work_for_other_outputs(self, tmp_path: Path) -> None:
        model = llama()
        state = node_named(model, "layers.3/residual2", "Add").output[0]
        model.graph.node.append(helper.make_node("Tanh", [state], ["pooled"], name="/pooler"))
        model.graph.output.append(helper.make_tensor_value_info("pooled", HALF, None))
        refused(tmp_path, model, "node '/pooler' (Tanh): works for another output than the logits: not modelled")

    def test_hidden_states_beside_logits_are_no_work(self, tmp_path: Path) -> None:
        model = llama()
        state = node_named(model, "layers.1/residual2", "Add").output[0]
        model.graph.output.append(helper.make_tensor_value_info(state, HALF, None))
        assert load_onnx_model(save(tmp_path, model)) == from_onnx(tmp_path)

    def test_a_decoder_without_head(self, tmp_path: Path) -> None:
        model = llama()
        del model.graph.output[0]
        refused(tmp_path, model, "outputs made of the last hidden state: none; the logits alone are expected")

    def test_without_token_ids(self, tmp_path: Path) -> None:
        model = llama()
        model.graph.input[0].type.tensor_type.elem_type = FLOAT
        refused(tmp_path, model, "no embedding: nothing looks up rows of a matrix by an input of integers")

    def test_a_head_of_another_size(self, tmp_path: Path) -> None:
        model = llama()
        next(held for held in model.graph.initializer if held.name == "lm_head.weight").dims[1] = 96
        refused(tmp_path, model, "an LM head of 96 outputs for an embedding of 97 rows: not modelled")

    def test_products_aside(self, tmp_path: Path) -> None:
        model = llama()
        next(held for held in model.graph.initializer if held.name == "inv_freq").dims[:] = [1, 2, 2]
        refused(tmp_path, model, "a product that does not depend on the tokens is not modelled")

    def test_mixed_widths(self, tmp_path: Path) -> None:
        model = llama()
        next(held for held in model.graph.initializer if held.name == "lm_head.weight").data_type = FLOAT
        refused(tmp_path, model, "lm_head is stored or multiplied in 32 bits, the embedding in 16")

    def test_control_flow_and_functions(self, tmp_path: Path) -> None:
        model = llama()
        inner = helper.make_graph([], "then", [], [])
        node_named(model, "layers.0/residual_", "Add").attribute.append(helper.make_attribute("then_branch", inner))
        refused(tmp_path, model, "(Add): control flow is not modelled; export it for one way")
        model = llama()
        model.functions.add(name="f", domain="d")
        refused(tmp_path, model, "1 functions of its own, which are not read; inline them with onnx.inliner")

    def test_a_cache_of_more_than_keys(self, tmp_path: Path) -> None:
        model = llama()
        for entry in model.graph.input:
            if entry.name == "past_key_values.2.key":
                entry.type.tensor_type.shape.dim[1].dim_value = 7
        refused(tmp_path, model, "the cache 'past_key_values.2.key' holds 56 elements a token, keys have 16")


class TestDamaged:
    def test_no_model(self, tmp_path: Path) -> None:
        for content, what in ((b"", "holds no graph"), (b"{}", "is no ONNX model, or a damaged one")):
            path = tmp_path / "a.onnx"
            path.write_bytes(content)
            with pytest.raises(UserError, match=what):
                load_onnx_model(path)
        with pytest.raises(UserError, match="the ONNX model does not exist"):
            load_onnx_model(tmp_path / "b.onnx")

    def test_nodes_out_of_order(self, tmp_path: Path) -> None:
        model = llama()
        first = model.graph.node[0]
        nodes = [*model.graph.node[1:], first]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        refused(tmp_path, model, f"reads '{first.output[0]}', which nothing before it makes; the file is damaged")

    def test_two_that_make_the_same(self, tmp_path: Path) -> None:
        model = llama()
        model.graph.node.append(model.graph.node[0])
        refused(tmp_path, model, f"makes '{model.graph.node[0].output[0]}', which is there already")

    def test_an_opset_that_nobody_knows(self, tmp_path: Path) -> None:
        for version in (6, 999):
            model = llama()
            model.opset_import[0].version = version
            refused(tmp_path, model, f"opset {version} of ONNX's operators: known are 7 to ")

    def test_sizes_below_nothing(self, tmp_path: Path) -> None:
        model = llama()
        model.graph.initializer[0].dims[0] = -5
        refused(tmp_path, model, "tensor 'embed_tokens.weight' has sizes (-5, 48)")


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, llama())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"needs the onnx package, which is not installed; install it: pip install"):
        load_onnx_model(path)


def test_the_name_is_the_files_or_its_folders(tmp_path: Path) -> None:
    (tmp_path / "TinyLlama").mkdir()
    assert load_onnx_model(save(tmp_path / "TinyLlama", llama(), "model.onnx")).name == "TinyLlama"
    assert load_onnx_model(save(tmp_path, llama(), "tiny-llama.onnx")).name == "tiny-llama"
