"""Graphs with work that an architecture cannot say are refused with the node that does it, damaged ones in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_cases import MICROSOFT, before, gpt2, llama, node_named, refused, save
from trace_cases import only_layer

from foundation.errors import UserError
from trace_gen.models import load_onnx_model

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
FUSED = {"norms": "fused", "opset": 23}
Edit = Callable[[ModelProto], object]


def at(model: ModelProto, node: Any) -> int:
    return list(model.graph.node).index(node)


def put(model: ModelProto, place: int, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
    model.graph.node.insert(place, helper.make_node(op, inputs, [output], name=f"/put_{op}", **attributes))


def held(model: ModelProto, name: str) -> Any:
    return next(one for one in model.graph.initializer if one.name == name)


def vector(model: ModelProto, name: str, *dims: int, dtype: int = HALF) -> str:
    width = helper.tensor_dtype_to_np_dtype(dtype).itemsize
    model.graph.initializer.append(helper.make_tensor(name, dtype, dims, bytes(width * int(np.prod(dims))), raw=True))
    return name


def after(part: str, op: str, *dims: int, kind: str = "MatMul", more: tuple[str, ...] = ()) -> Edit:
    """Return the edit that puts `op` with a vector of `dims` behind the node named `part`."""

    def edit(model: ModelProto) -> None:
        node = node_named(model, part, kind)
        inputs = ["raw", *more] + ([vector(model, "put.vector", *dims)] if dims else [])
        put(model, at(model, node) + 1, op, inputs, node.output[0])
        node.output[0] = "raw"

    return edit


def dims(name: str, *sizes: int) -> Edit:
    def edit(model: ModelProto) -> None:
        held(model, name).dims[:] = sizes

    return edit


def attribute(part: str, op: str, **values: Any) -> Edit:
    def edit(model: ModelProto) -> None:
        node = node_named(model, part, op)
        for name, value in values.items():
            for found in [one for one in node.attribute if one.name == name]:
                node.attribute.remove(found)
            node.attribute.append(helper.make_attribute(name, value))

    return edit


def reads(part: str, op: str, place: int, of: str, of_op: str = "MatMul") -> Edit:
    """Return the edit that lets a node read what another one makes."""

    def edit(model: ModelProto) -> None:
        node_named(model, part, op).input[place] = node_named(model, of, of_op).output[0]

    return edit


def positions_twice(model: ModelProto) -> None:
    first = next(node for node in model.graph.node if node.op_type == "Add" and "Add_" in node.name)
    put(model, at(model, first) + 1, "Add", ["once", first.input[1]], first.output[0])
    first.output[0] = "once"


def no_mlp(*layers: int) -> Edit:
    """Return the edit that takes the MLPs out of layers: what reads their sums reads what goes into them."""

    def edit(model: ModelProto) -> None:
        for layer in layers:
            last = node_named(model, f"layers.{layer}/residual2", "Add")
            for node in model.graph.node:
                node.input[:] = [last.input[0] if name == last.output[0] else name for name in node.input]
            model.graph.node.remove(last)

    return edit


def doubled_head(model: ModelProto) -> None:
    node = node_named(model, "lm_head", "MatMul")
    node.op_type = "FusedMatMul"
    node.domain = MICROSOFT


def side_by_side(model: ModelProto) -> None:
    """Attention and MLP of layer 0 read the same norm and are added up before the state is."""
    norms = [node for node in model.graph.node if node.op_type == "RMSNormalization"]
    first, second = node_named(model, "layers.0/residual_", "Add"), node_named(model, "layers.0/residual2", "Add")
    for node in model.graph.node:
        node.input[:] = [norms[0].output[0] if name == norms[1].output[0] else name for name in node.input]
    both = [first.input[1], second.input[1]]
    put(model, at(model, second), "Add", both, "both")
    second.input[:] = [first.input[0], "both"]
    model.graph.node.remove(norms[1])
    model.graph.node.remove(first)


def an_earlier_state(model: ModelProto) -> None:
    first, second = node_named(model, "layers.0/residual_", "Add"), node_named(model, "layers.0/residual2", "Add")
    second.input[0] = first.input[0]


def third_factor(model: ModelProto) -> None:
    node = node_named(model, DOWN, "MatMul")
    inputs = [node_named(model, GATE, "MatMul").input[0], vector(model, "another.weight", 48, 80)]
    put(model, at(model, node), "MatMul", inputs, "another")
    put(model, at(model, node), "Mul", [node.input[0], "another"], "third")
    node.input[0] = "third"


def shared(model: ModelProto) -> None:
    node_named(model, "layers.2.mlp.up_proj", "MatMul").input[1] = node_named(model, GATE, "MatMul").input[1]


def joined_queries(model: ModelProto) -> None:
    node = node_named(model, O_PROJ, "MatMul")
    both = [node.input[0], node_named(model, Q_PROJ, "MatMul").output[0]]
    put(model, at(model, node), "Concat", both, "joined", axis=-1)
    node.input[0] = "joined"


def queries_in(*sizes: int) -> Edit:
    """Return the edit that gives the queries of layer 0 other sizes; none: sizes that nobody knows."""

    def edit(model: ModelProto) -> None:
        queries = node_named(model, Q_PROJ, "MatMul").output[0]
        node = next(one for one in model.graph.node if one.op_type == "Reshape" and one.input[0] == queries)
        node.input[1] = "attention_mask"
        if sizes:
            model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, dtype=np.int64), "new.sizes"))
            node.input[1] = "new.sizes"

    return edit


def aside(model: ModelProto) -> None:
    node = node_named(model, "angles", "MatMul")
    put(model, at(model, node), "Conv", [node.input[1], node.input[1]], "convolved")
    node.input[1] = "convolved"


def made_by(part: str, op: str) -> Edit:
    """Return the edit that has the weight of a projection, or what it is made of, go through `op` first."""

    def edit(model: ModelProto) -> None:
        put(model, 0, op, [part], "made.weight")
        for node in model.graph.node[1:]:
            node.input[:] = ["made.weight" if name == part else name for name in node.input]

    return edit


def layer_norm_at_the_end(model: ModelProto) -> None:
    last = model.graph.node[at(model, node_named(model, "lm_head")) - 1]
    last.op_type = "LayerNormalization"
    last.input.append(vector(model, "norm.bias", 48))


O_PROJ, Q_PROJ, K_PROJ, V_PROJ = (f"layers.0.self_attn.{part}_proj" for part in "oqkv")
DOWN, GATE = "layers.0.mlp.down_proj", "layers.0.mlp.gate_proj"
EDITS: dict[str, tuple[dict[str, Any], Edit, str]] = {
    "attention and MLP added up": (
        FUSED,
        side_by_side,
        "(MatMul) (attention and MLP side by side?) before it is added",
    ),
    "an earlier state": (FUSED, an_earlier_state, "adds to a hidden state that something was added to before"),
    "three factors": ({}, third_factor, "takes something made of 3 products: the one or two projections of an MLP"),
    "weights of another layer": (
        {},
        shared,
        "layers that share weights are not modelled",
    ),
    "queries beside attention": ({}, joined_queries, "takes something made of 2 products: attention is expected"),
    "queries of unknown sizes": ({}, queries_in(), "the sizes of its queries cannot be told; export it with named"),
    "queries that are no list": ({}, queries_in(-1, 8), "the sizes of its queries cannot be told"),
    "queries rotated alone": (
        {"fused_attention": "Attention", "opset": 23},
        reads("self_attn/attention", "Attention", 1, K_PROJ),
        "rotary positions of either queries or keys alone: not modelled",
    ),
    "a convolution aside": ({}, aside, "(Conv): work that does not depend on the tokens is not modelled"),
    "a weight that is made": ({}, made_by(DOWN, "Relu"), "by a matrix that is made by node '/put_Relu' (Relu)"),
    "a quantised one that is made": (
        {"weights": "tensor", "opset": 19},
        made_by(DOWN, "Abs"),
        "by a matrix that is made by node '/put_Abs' (Abs)",
    ),
    "a matrix of 32-bit integers": (
        {"weights": "tensor", "opset": 19},
        lambda model: setattr(held(model, DOWN), "data_type", TensorProto.INT32),
        "(DequantizeLinear): a matrix of another form than 4 or 8 bits with scales of 16 or 32",
    ),
    "outputs of another width": ({}, dims(DOWN, 80, 40), "adds 40 elements to a hidden state of 48"),
    "inputs of another width": ({}, dims(GATE, 40, 80), "takes 40 elements of a hidden state of 48"),
    "a vector that is no bias": ({}, after(O_PROJ, "Add", 12), "adds 12 elements to a projection's 48: a bias is"),
    "a vector in an MLP": ({}, after(GATE, "Mul", 12), "parameters of sizes [12] in an MLP, biases of [80, 80]"),
    "a bias on the gate alone": ({}, after(GATE, "Add", 80), "some projections have biases and some have not"),
    "a bias on keys alone": ({}, after(K_PROJ, "Add", 16), "only some of queries, keys and values have biases"),
    "values rotated": ({}, after(V_PROJ, "Mul", 5, 16), "values that are normalised or rotated are not modelled"),
    "other heads": ({}, dims(O_PROJ, 40, 48), "takes 40 elements of 6 heads of 8"),
    "values of another width": ({}, dims(V_PROJ, 48, 24), "queries, keys and values of 48, 16, 24 elements for 6"),
    "keys that share unevenly": (
        {"fused_attention": "GroupQueryAttention"},
        lambda model: [dims(name, 48, 32)(model) for name in (K_PROJ, V_PROJ)],
        "keys and values of 64 elements for 6 heads of 8: not modelled",
    ),
    "no whole keys": (
        {"fused_attention": "GroupQueryAttention"},
        lambda model: [dims(name, 48, 12)(model) for name in (K_PROJ, V_PROJ)],
        "keys and values of 24 elements for 6 heads of 8: not modelled",
    ),
    "heads that do not divide": (
        {"fused_attention": "GroupQueryAttention"},
        dims(Q_PROJ, 48, 50),
        "50 elements, which 6 heads do not divide",
    ),
    "queries and keys the same": ({}, reads("self_attn/values", "MatMul", 0, "self_attn/scores"), "but no softmax"),
    "queries of the state": (
        {"fused_attention": "GroupQueryAttention", **FUSED},
        reads("self_attn/attention", "Group", 0, "RMSNorm", "RMSNorm"),
        "queries, keys or values made of no projection: one projection each is expected",
    ),
    "onnxruntime's own projections": (
        {"fused_attention": "GroupQueryAttention"},
        lambda model: setattr(node_named(model, "self_attn/attention", "Group"), "op_type", "Attention"),
        "an Attention that holds its projections is not modelled; export it unfused",
    ),
    "a norm of another width": ({}, dims("layers.0.input_layernorm.weight", 40), "parameters of sizes [40], expected"),
    "a norm of whole queries": (
        {"qk_norm": True},
        dims("layers.0.self_attn.q_norm", 6, 8),
        "a norm of queries or keys other than RMSNorm of heads of 8",
    ),
    "a layer without MLP": ({}, no_mlp(1), "7 additions to the hidden state: two a layer are expected"),
    "two attentions in a row": ({}, no_mlp(1, 3), "layer 1 is not attention followed by an MLP: not modelled"),
    "a bias of the head": ({}, after("lm_head", "Add", 97), "a bias of the LM head is not modelled"),
    "a product of another kind": ({}, doubled_head, "(FusedMatMul): this kind of product is not modelled"),
    "weights of three sizes": ({}, dims(DOWN, 2, 40, 48), "multiplies by weights that are no matrix"),
    "a matrix of nothing": ({}, dims(DOWN, 0, 48), "multiplies by a matrix of sizes (0, 48): each is from 1"),
    "weights of doubles": (
        {},
        lambda model: setattr(held(model, DOWN), "data_type", TensorProto.DOUBLE),
        "multiplies by weights that are no floating-point numbers of 16 or 32 bits",
    ),
    "blocks of another form": (
        {"weights": "nbits", "hidden": 64, "kinds": (96, 96)},
        attribute(DOWN, "MatMulNBits", bits=3),
        "weights, scales and sizes of another form than 4 or 8 bits in blocks of inputs",
    ),
    "blocks of another size": (
        {"weights": "nbits", "hidden": 64, "kinds": (96, 96)},
        attribute(DOWN, "MatMulNBits", K=112),
        "bytes of weights, which 112 x 64 of 4 bits do not have",
    ),
    "scales of another size": (
        {"weights": "qdq", "opset": 19},
        dims(f"{DOWN}.s", 3),
        "scales of sizes (3,) for a matrix of sizes (48, 80) are not modelled",
    ),
    "norms of two kinds": (
        FUSED,
        layer_norm_at_the_end,
        "some norms are RMSNorms and some LayerNorms: not modelled",
    ),
    "an output of nothing": (
        {},
        lambda model: model.graph.output.append(helper.make_tensor_value_info("nil", HALF, None)),
        "output 'nil' is made by nothing",
    ),
    "sparse weights": ({}, lambda model: model.graph.sparse_initializer.add(), "sparse weights are not modelled"),
    "an input of an absurd size": (
        {},
        lambda model: setattr(model.graph.input[2].type.tensor_type.shape.dim[1], "dim_value", 1 << 60),
        "input 'attention_mask' has sizes ('batch', 1152921504606846976)",
    ),
}


@pytest.mark.parametrize(("changes", "edit", "what"), EDITS.values(), ids=EDITS.keys())
def test_one_change_is_refused_with_its_reason(tmp_path: Path, changes: dict[str, Any], edit: Edit, what: str) -> None:
    model = llama(**changes)
    assert load_onnx_model(save(tmp_path, model)).num_layers > 1
    edit(model)
    refused(tmp_path, model, what)


def constants_written_otherwise(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = numpy_helper.to_array(node.attribute[0].t)
            kind = {"i": "int", "f": "float"}[value.dtype.kind] + ("s" if value.ndim else "")
            if value.dtype != np.float16:
                del node.attribute[:]
                node.attribute.append(helper.make_attribute(f"value_{kind}", value.tolist()))


def mask_of_no_shape(model: ModelProto) -> None:
    model.graph.input[2].type.tensor_type.ClearField("shape")


def foreign_attribute(model: ModelProto) -> None:
    node_named(model, DOWN, "MatMul").attribute.add(name="of_no_type")


@pytest.mark.parametrize("edit", [constants_written_otherwise, mask_of_no_shape, foreign_attribute])
def test_other_ways_to_write_the_same(tmp_path: Path, edit: Edit) -> None:
    model, same = llama(dtype=FLOAT), load_onnx_model(save(tmp_path, llama(dtype=FLOAT)))
    edit(model)
    assert load_onnx_model(save(tmp_path, model)) == same


def test_a_bias_that_goes_with_the_addition(tmp_path: Path) -> None:
    model = llama(norms="skip")
    for node in model.graph.node:
        if node.op_type.startswith("Skip"):
            node.input.append(vector(model, f"{node.output[0]}.bias", 48))
    assert only_layer(load_onnx_model(save(tmp_path, model)))[0].output_bias
    assert not only_layer(load_onnx_model(save(tmp_path, llama(norms="skip"))))[0].output_bias


def test_of_positions(tmp_path: Path) -> None:
    model = gpt2()
    positions_twice(model)
    refused(tmp_path, model, "more than one table is added to the embedding: not modelled")
    model = gpt2()
    held(model, "wpe.weight").dims[:] = [64, 16]
    refused(tmp_path, model, "adds something other than a learned table of 32 columns: not modelled")


def test_of_queries_that_are_no_heads_of_tokens(tmp_path: Path) -> None:
    model = gpt2()
    queries = node_named(model, "Split", "Split").output[0]
    node = next(one for one in model.graph.node if one.op_type == "Reshape" and one.input[0] == queries)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, -1, 1013]), "new.sizes"))
    node.input[1] = "new.sizes"
    refused(tmp_path, model, "queries of sizes (1, 32288, 1, 1013) are no heads of tokens")


def test_of_gemms(tmp_path: Path) -> None:
    for values, what in (
        ({"transA": 1}, "a product that transposes or scales its input is not modelled"),
        ({"alpha": 0.5}, "a product that transposes or scales its input is not modelled"),
    ):
        model = gpt2()
        attribute("h.0.mlp.c_fc", "Gemm", **values)(model)
        refused(tmp_path, model, what)
    model = gpt2()
    held(model, "h.1.mlp.c_fc.bias").dims[:] = [64]
    refused(tmp_path, model, "adds something other than a vector of 128 elements")
    model = gpt2()
    attribute("h.0.attn.c_proj", "Gemm", transB=1)(model)
    assert load_onnx_model(save(tmp_path, model)) == load_onnx_model(save(tmp_path, gpt2()))


@pytest.mark.parametrize(("equation", "fits"), [("bij,bkl->bikjl", True), ("bij,bjk->bik", False), ("bij,bjk", False)])
def test_of_products_aside(tmp_path: Path, equation: str, fits: bool) -> None:
    """Angles by an Einsum: outer products alone are taken."""
    model = llama()
    node = node_named(model, "angles", "MatMul")
    node.op_type = "Einsum"
    node.attribute.append(helper.make_attribute("equation", equation))
    if fits:
        assert load_onnx_model(save(tmp_path, model)).num_layers == 4
    else:
        refused(tmp_path, model, "(Einsum): a product that does not depend on the tokens is not modelled")


def test_of_more_layers_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trace_gen.onnx.decoder.MOST_LAYERS", 4)
    assert load_onnx_model(save(tmp_path, llama())).num_layers == 4
    refused(tmp_path, llama(kinds=(80,) * 5), "5 layers; at most 4 are read")


def test_of_more_nodes_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    monkeypatch.setattr("trace_gen.onnx.reading.MOST_NODES", len(model.graph.node))
    assert load_onnx_model(save(tmp_path, model)).num_layers == 4
    monkeypatch.setattr("trace_gen.onnx.reading.MOST_NODES", len(model.graph.node) - 1)
    refused(tmp_path, model, f"{len(model.graph.node)} nodes; at most {len(model.graph.node) - 1} are read")


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
        dims("layers.0.mlp.up_proj", 48, 48)(model)
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
        assert load_onnx_model(save(tmp_path, model)) == load_onnx_model(save(tmp_path, llama()))

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

    def test_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        """Protobuf gives it as bytes, or refuses the file, by its version."""
        path = save(tmp_path, llama())
        load_onnx_model(path)
        whole = path.read_bytes()
        changed = whole.replace(b"input_ids", b"\xc8" * len("input_ids"), 1)
        assert changed != whole
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"which nothing before it makes|is no ONNX model"):
            load_onnx_model(path)
