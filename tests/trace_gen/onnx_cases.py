"""Small decoders as ONNX graphs, as exporters write them: shapes computed by nodes, norms and masks in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the onnx package is an extra: pip install 'orrery-sim[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from foundation.errors import UserError  # noqa: E402
from trace_gen.models import load_onnx_model  # noqa: E402

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Shape:
    """A Llama-like decoder; `kinds` are the widths of the MLPs of its layers, from the first to the last."""

    hidden: int = 48
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 8
    kinds: tuple[int, ...] = (80, 80, 80, 80)
    vocab: int = 97
    cache: bool = True
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    fused_qkv: bool = False
    fused_up: bool = False
    fused_attention: str = ""
    norms: str = "pieces"
    weights: str = "float"
    dtype: int = TensorProto.FLOAT16
    opset: int = 18
    batch: int | str = "batch"
    tokens: int | str = "sequence"
    external: bool = True

    def config(self) -> dict[str, Any]:
        """Return the same as a config.json."""
        return {
            "model_type": "qwen3" if self.qk_norm else "qwen2" if self.qkv_bias else "llama",
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.kinds[0],
            "num_hidden_layers": len(self.kinds),
            "vocab_size": self.vocab,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": self.tied,
        }


@dataclass
class Writer:
    """Collects nodes and weights; `op` returns the name of what a node makes."""

    dtype: int = TensorProto.FLOAT16
    external: bool = True
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    count: int = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", name: str = "", **attributes: Any) -> Any:
        self.count += 1
        made = [f"{name or kind}_{self.count}_{at}" for at in range(outputs)]
        title = f"/{name or kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, made, name=title, domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def ints(self, *values: int) -> str:
        return str(self.op("Constant", value=numpy_helper.from_array(np.array(values, dtype=np.int64))))

    def number(self, value: float) -> str:
        array = np.array(value, dtype=helper.tensor_dtype_to_np_dtype(self.dtype))
        return str(self.op("Constant", value=numpy_helper.from_array(array)))

    def weight(self, name: str, *dims: int, dtype: int | None = None) -> str:
        kind = self.dtype if dtype is None else dtype
        if self.external and dtype is None and int(np.prod(dims)) > 64:
            tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
            tensor.external_data.add(key="location", value="nowhere.bin")
        else:
            raw = b"\0" * (int(np.prod(dims)) * helper.tensor_dtype_to_np_dtype(kind).itemsize)
            tensor = helper.make_tensor(name, kind, dims, raw, raw=True)
        self.weights.append(tensor)
        return name

    def sizes(self, of: str, *rest: int | str) -> str:
        """Return batch and tokens of `of`, then `rest`, as a shape: what `view(batch, tokens, ...)` is exported to."""
        shape = self.op("Shape", of)
        ends = [self.op("Unsqueeze", self.op("Gather", shape, self.ints_scalar(at)), self.ints(0)) for at in (0, 1)]
        more = [one if isinstance(one, str) else self.ints(one) for one in rest]
        return str(self.op("Concat", *ends, *more, axis=0))

    def ints_scalar(self, value: int) -> str:
        return str(self.op("Constant", value=numpy_helper.from_array(np.array(value, dtype=np.int64))))

    def matrix(self, name: str, inputs: int, outputs: int, how: str) -> str:
        """Return a matrix of `inputs` x `outputs` as `how` stores it: float, turned, qdq, tensor or blocks."""
        if how == "float":
            return self.weight(name, inputs, outputs)
        if how == "turned":
            return str(self.op("Transpose", self.weight(name, outputs, inputs), perm=[1, 0]))
        if how == "tensor":
            held, scale = self.weight(name, inputs, outputs, dtype=TensorProto.INT8), self.weight(f"{name}.s")
            return str(self.op("DequantizeLinear", held, scale))
        if how == "qdq":
            held = self.weight(name, outputs, inputs, dtype=TensorProto.INT8)
            scale, zero = self.weight(f"{name}.s", outputs), self.weight(f"{name}.z", outputs, dtype=TensorProto.INT8)
            made = self.op("DequantizeLinear", held, scale, zero, axis=0)
            return str(self.op("Transpose", made, perm=[1, 0]))
        held = TensorProto(name=name, data_type=TensorProto.UINT4, dims=(inputs, outputs))
        held.raw_data = bytes(inputs * outputs // 2)
        self.weights.append(held)
        scale = self.weight(f"{name}.s", inputs // 8, outputs)
        return str(self.op("DequantizeLinear", name, scale, axis=0, block_size=8))

    def linear(self, of: str, name: str, inputs: int, outputs: int, how: str = "float", bias: bool = False) -> str:
        if how == "nbits":
            held = self.weight(name, outputs, inputs // 16, 8, dtype=TensorProto.UINT8)
            scale = self.weight(f"{name}.s", outputs * inputs // 16)
            sizes = {"K": inputs, "N": outputs, "bits": 4, "block_size": 16}
            made = self.op("MatMulNBits", of, held, scale, domain=MICROSOFT, name=name, **sizes)
        else:
            made = self.op("MatMul", of, self.matrix(name, inputs, outputs, how), name=name)
        return str(self.op("Add", self.weight(f"{name}.bias", outputs), made)) if bias else str(made)

    def rms(self, of: str, name: str, width: int) -> str:
        mean = self.op("ReduceMean", self.op("Pow", of, self.number(2)), self.ints(-1))
        root = self.op("Sqrt", self.op("Add", mean, self.number(1e-5)))
        scaled = self.op("Mul", of, self.op("Div", self.number(1), root))
        return str(self.op("Mul", self.weight(name, width), scaled))

    def layer_norm(self, of: str, name: str, width: int) -> str:
        centred = self.op("Sub", of, self.op("ReduceMean", of, self.ints(-1)))
        variance = self.op("ReduceMean", self.op("Pow", centred, self.number(2)), self.ints(-1))
        scaled = self.op("Div", centred, self.op("Sqrt", self.op("Add", variance, self.number(1e-5))))
        scaled = self.op("Mul", scaled, self.weight(f"{name}.weight", width))
        return str(self.op("Add", scaled, self.weight(f"{name}.bias", width)))

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any], opset: int) -> Any:
        graph = helper.make_graph(self.nodes, "decoder", list(inputs), list(outputs), self.weights)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


class Llama:
    """Writes a Llama-like decoder."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.write = shape, Writer(shape.dtype, shape.external)
        self.caches: list[Any] = []
        self.kept: list[str] = []

    def model(self) -> Any:
        shape, write = self.shape, self.write
        table = write.weight("embed_tokens.weight", shape.vocab, shape.hidden)
        state = write.op("Gather", table, "input_ids", name="embed")
        self._positions()
        for at, width in enumerate(shape.kinds):
            state = self._layer(f"layers.{at}", at, state, width)
        state = self._norm(state, "norm")
        if shape.tied:
            head = write.op("Transpose", table, perm=[1, 0])
        else:
            head = write.weight("lm_head.weight", shape.hidden, shape.vocab)
        logits = write.op("MatMul", state, head, name="lm_head")
        write.nodes.append(helper.make_node("Cast", [logits], ["logits"], name="/cast", to=TensorProto.FLOAT))
        return write.model(self._inputs(), self._outputs(), shape.opset)

    def _inputs(self) -> list[Any]:
        shape, named = self.shape, helper.make_tensor_value_info
        places = [shape.batch, shape.tokens]
        inputs = [named(name, TensorProto.INT64, places) for name in ("input_ids", "position_ids")]
        total = "past_sequence_length + sequence_length" if shape.cache else shape.tokens
        return [*inputs, named("attention_mask", TensorProto.INT64, [shape.batch, total]), *self.caches]

    def _outputs(self) -> list[Any]:
        named, places = helper.make_tensor_value_info, [self.shape.batch, self.shape.tokens]
        cached = [self.shape.batch, self.shape.kv_heads, "total_length", self.shape.head_dim]
        kept = [named(name, self.shape.dtype, cached) for name in self.kept]
        return [named("logits", TensorProto.FLOAT, [*places, self.shape.vocab]), *kept]

    def _positions(self) -> None:
        """Rotary angles as an outer product, and the mask, by nodes before the layers."""
        write, half = self.write, self.shape.head_dim // 2
        frequencies = write.weight("inv_freq", 1, half, 1, dtype=TensorProto.FLOAT)
        batch = write.op("Slice", write.op("Shape", "position_ids"), write.ints(0), write.ints(1))
        shape = write.op("Concat", batch, write.ints(half), write.ints(1), axis=0)
        here = write.op("Cast", write.op("Unsqueeze", "position_ids", write.ints(1)), to=TensorProto.FLOAT)
        angles = write.op("MatMul", write.op("Expand", frequencies, shape), here, name="angles")
        angles = write.op("Transpose", angles, perm=[0, 2, 1])
        both = write.op("Unsqueeze", write.op("Concat", angles, angles, axis=-1), write.ints(1))
        self.cos, self.sin = (write.op("Cast", write.op(op, both), to=self.shape.dtype) for op in ("Cos", "Sin"))
        allowed = write.op("Cast", "attention_mask", to=TensorProto.BOOL)
        masked = write.op("Where", allowed, write.number(0.0), write.number(-1e4))
        self.mask = write.op("Unsqueeze", masked, write.ints(1, 2))

    def _norm(self, of: str, name: str) -> str:
        write, hidden = self.write, self.shape.hidden
        if self.shape.norms == "pieces":
            return write.rms(of, f"{name}.weight", hidden)
        kind = "RMSNormalization" if self.shape.norms == "fused" else "SimplifiedLayerNormalization"
        return str(write.op(kind, of, write.weight(f"{name}.weight", hidden), axis=-1))

    def _layer(self, name: str, at: int, state: str, width: int) -> str:
        write = self.write
        attended = self._attention(f"{name}.self_attn", at, self._norm(state, f"{name}.input_layernorm"))
        if self.shape.norms == "skip":
            weight = write.weight(f"{name}.post_attention_layernorm.weight", self.shape.hidden)
            kind = "SkipSimplifiedLayerNormalization"
            normed, *_, state = write.op(kind, state, attended, weight, outputs=4, domain=MICROSOFT)
        else:
            state = write.op("Add", state, attended, name=f"{name}/residual")
            normed = self._norm(state, f"{name}.post_attention_layernorm")
        after = self._mlp(f"{name}.mlp", normed, width)
        return str(write.op("Add", state, after, name=f"{name}/residual2"))

    def _mlp(self, name: str, of: str, width: int) -> str:
        write, hidden, how = self.write, self.shape.hidden, self.shape.weights
        if self.shape.fused_up:
            both = write.linear(of, f"{name}.gate_up_proj", hidden, 2 * width, how)
            gate, up = write.op("Split", both, write.ints(width, width), outputs=2, axis=-1)
        else:
            gate, up = (write.linear(of, f"{name}.{part}_proj", hidden, width, how) for part in ("gate", "up"))
        act = write.op("Mul", gate, write.op("Sigmoid", gate))
        return write.linear(write.op("Mul", act, up), f"{name}.down_proj", width, hidden, how)

    def _attention(self, name: str, at: int, of: str) -> str:
        shape, write = self.shape, self.write
        query, kept = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        how, bias = shape.weights, shape.qkv_bias
        if shape.fused_qkv:
            whole = write.linear(of, f"{name}.qkv_proj", shape.hidden, query + 2 * kept, how, bias)
            made = write.op("Split", whole, write.ints(query, kept, kept), outputs=3, axis=-1)
        else:
            widths = {"q": query, "k": kept, "v": kept}
            made = [write.linear(of, f"{name}.{p}_proj", shape.hidden, w, how, bias) for p, w in widths.items()]
        together = self._fused if shape.fused_attention else self._in_pieces
        return write.linear(together(name, at, of, made), f"{name}.o_proj", query, shape.hidden, how)

    def _in_pieces(self, name: str, at: int, of: str, made: Sequence[str]) -> str:
        shape, write = self.shape, self.write
        counts = (shape.heads, shape.kv_heads, shape.kv_heads)
        sizes = [write.sizes(of, count, shape.head_dim) for count in counts]
        split = [write.op("Reshape", one, size) for one, size in zip(made, sizes, strict=True)]
        if shape.qk_norm:
            split[:2] = [
                write.rms(one, f"{name}.{p}_norm", shape.head_dim) for one, p in zip(split, "qk", strict=False)
            ]
        query, key, value = (write.op("Transpose", one, perm=[0, 2, 1, 3]) for one in split)
        query, key = self._rotated(query), self._rotated(key)
        key, value = (self._joined(f"{at}.{part}", one) for part, one in (("key", key), ("value", value)))
        key, value = self._repeated(key), self._repeated(value)
        scores = write.op("MatMul", query, write.op("Transpose", key, perm=[0, 1, 3, 2]), name=f"{name}/scores")
        scores = write.op("Add", write.op("Div", scores, write.number(2.8)), self.mask)
        weights = write.op("Softmax", scores, axis=-1, name=f"{name}/softmax")
        heads = write.op("Transpose", write.op("MatMul", weights, value, name=f"{name}/values"), perm=[0, 2, 1, 3])
        return str(write.op("Reshape", heads, write.sizes(of, shape.heads * shape.head_dim)))

    def _rotated(self, of: str) -> str:
        write, half = self.write, self.shape.head_dim // 2
        low = write.op("Slice", of, write.ints(0), write.ints(half), write.ints(3))
        high = write.op("Slice", of, write.ints(half), write.ints(1 << 40), write.ints(3))
        turned = write.op("Concat", write.op("Neg", high), low, axis=-1)
        return str(write.op("Add", write.op("Mul", of, self.cos), write.op("Mul", turned, self.sin)))

    def _joined(self, name: str, of: str) -> str:
        if not self.shape.cache:
            return of
        past = self._past(name)
        return self._present(name, self.write.op("Concat", past, of, axis=2))

    def _past(self, name: str) -> str:
        shape, past = self.shape, f"past_key_values.{name}"
        places = [shape.batch, shape.kv_heads, "past_sequence_length", shape.head_dim]
        self.caches.append(helper.make_tensor_value_info(past, shape.dtype, places))
        return past

    def _present(self, name: str, of: str) -> str:
        present = f"present.{name}"
        self.write.nodes.append(helper.make_node("Identity", [of], [present], name=f"/{present}"))
        self.kept.append(present)
        return of

    def _repeated(self, of: str) -> str:
        """`repeat_kv`: a copy of keys or values for each of the query heads that share them."""
        shape, write = self.shape, self.write
        sizes = [write.op("Slice", write.op("Shape", of), write.ints(at), write.ints(at + 1)) for at in (0, 2)]
        groups = shape.heads // shape.kv_heads
        wide = [sizes[0], write.ints(shape.kv_heads), write.ints(groups), sizes[1], write.ints(shape.head_dim)]
        whole = [sizes[0], write.ints(shape.heads), sizes[1], write.ints(shape.head_dim)]
        copies = write.op("Expand", write.op("Unsqueeze", of, write.ints(2)), write.op("Concat", *wide, axis=0))
        return str(write.op("Reshape", copies, write.op("Concat", *whole, axis=0)))

    def _fused(self, name: str, at: int, of: str, made: Sequence[str]) -> str:
        """One operator: onnxruntime's GroupQueryAttention (with its rotary positions; or with queries, keys and values
        packed), its MultiHeadAttention, or ONNX's Attention."""
        shape, write = self.shape, self.write
        if shape.fused_attention in ("MultiHeadAttention", "Attention"):
            return self._fused_alone(name, at, made)
        if shape.fused_attention == "packed":
            made = (write.nodes.pop().input[0], "", "")
        lengths = write.op("ReduceSum", "attention_mask", write.ints(1), keepdims=0)
        total = write.op("Gather", write.op("Shape", "attention_mask"), write.ints_scalar(1))
        tables = [self._table(part) for part in ("cos", "sin")]
        past = [self._past(f"{at}.{part}") for part in ("key", "value")]
        attributes = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "do_rotary": 1}
        attended, *present = write.op(
            *("GroupQueryAttention", *made, *past, lengths, total, *tables),
            outputs=3,
            domain=MICROSOFT,
            name=f"{name}/attention",
            **attributes,
        )
        for part, one in zip(("key", "value"), present, strict=True):
            self._present(f"{at}.{part}", one)
        return str(attended)

    def _fused_alone(self, name: str, at: int, made: Sequence[str]) -> str:
        shape, write, kind = self.shape, self.write, self.shape.fused_attention
        domain = MICROSOFT if kind == "MultiHeadAttention" else ""
        tables = [self._table(part) for part in ("cos", "sin")]
        turned = [
            write.op("RotaryEmbedding", one, *tables, "position_ids", num_heads=count)
            if not domain
            else write.op("RotaryEmbedding", one, "position_ids", *tables, domain=domain, num_heads=count)
            for one, count in zip(made, (shape.heads, shape.kv_heads), strict=False)
        ]
        past = [self._past(f"{at}.{part}") for part in ("key", "value")]
        inputs = (*turned, made[2], *(("", "", "") if domain else ("",)), *past)
        counts = {"num_heads": shape.heads}
        if not domain:
            counts = {"q_num_heads": shape.heads, "kv_num_heads": shape.kv_heads}
        attended, *present = write.op(kind, *inputs, outputs=3, domain=domain, name=f"{name}/attention", **counts)
        for part, one in zip(("key", "value"), present, strict=True):
            self._present(f"{at}.{part}", one)
        return str(attended)

    def _table(self, name: str) -> str:
        known = any(one.name == name for one in self.write.weights)
        return name if known else self.write.weight(name, 512, self.shape.head_dim // 2)


def llama(**changes: Any) -> Any:
    """Return the model of a Llama-like decoder that differs from the small one in `changes`."""
    return Llama(replace(Shape(), **changes)).model()


def gpt2(layers: int = 3, hidden: int = 32, heads: int = 4, vocab: int = 61, positions: int = 64) -> Any:
    """Return a GPT-2: LayerNorms in pieces, one projection for queries, keys and values by Gemm, tanh's GELU."""
    write, named = Writer(TensorProto.FLOAT, external=False), helper.make_tensor_value_info
    table, learned = write.weight("wte.weight", vocab, hidden), write.weight("wpe.weight", positions, hidden)
    head_dim = hidden // heads
    state = write.op("Gather", table, "input_ids")
    shape = write.op("Shape", "input_ids")
    here = write.op(
        "Range", write.ints_scalar(0), write.op("Gather", shape, write.ints_scalar(1)), write.ints_scalar(1)
    )
    state = write.op("Add", state, write.op("Unsqueeze", write.op("Gather", learned, here), write.ints(0)))

    def dense(of: str, name: str, inputs: int, outputs: int) -> str:
        flat = write.op("Reshape", of, write.ints(-1, inputs))
        weights = write.weight(f"{name}.weight", inputs, outputs), write.weight(f"{name}.bias", outputs)
        made = write.op("Gemm", flat, *weights, name=name)
        return str(write.op("Reshape", made, write.sizes(of, outputs)))

    for at in range(layers):
        name = f"h.{at}"
        whole = dense(write.layer_norm(state, f"{name}.ln_1", hidden), f"{name}.attn.c_attn", hidden, 3 * hidden)
        parts = write.op("Split", whole, write.ints(hidden, hidden, hidden), outputs=3, axis=2)
        parts = [write.op("Reshape", one, write.sizes(one, heads, head_dim)) for one in parts]
        query, value = (write.op("Transpose", parts[one], perm=[0, 2, 1, 3]) for one in (0, 2))
        key = write.op("Transpose", parts[1], perm=[0, 2, 3, 1])
        scores = write.op("Div", write.op("MatMul", query, key), write.number(head_dim**0.5))
        weights = write.op("Softmax", scores, axis=-1)
        mixed = write.op("Transpose", write.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        mixed = write.op("Reshape", mixed, write.sizes(mixed, hidden))
        state = write.op("Add", dense(mixed, f"{name}.attn.c_proj", hidden, hidden), state)
        inner = dense(write.layer_norm(state, f"{name}.ln_2", hidden), f"{name}.mlp.c_fc", hidden, 4 * hidden)
        cubed = write.op("Mul", write.op("Pow", inner, write.number(3)), write.number(0.044715))
        curved = write.op("Tanh", write.op("Mul", write.op("Add", inner, cubed), write.number(0.8)))
        act = write.op("Mul", write.op("Mul", inner, write.number(0.5)), write.op("Add", curved, write.number(1)))
        state = write.op("Add", state, dense(act, f"{name}.mlp.c_proj", 4 * hidden, hidden))
    last = write.layer_norm(state, "ln_f", hidden)
    head = write.op("Transpose", table, perm=[1, 0])
    write.nodes.append(helper.make_node("MatMul", [last, head], ["logits"], name="/lm_head"))
    ids = named("input_ids", TensorProto.INT64, ["batch", "sequence"])
    return write.model([ids], [named("logits", TensorProto.FLOAT, ["batch", "sequence", vocab])], 18)


def save(folder: Path, model: Any, name: str = "tiny.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def refused(tmp_path: Path, model: Any, what: str) -> None:
    path = save(tmp_path, model)
    with pytest.raises(UserError) as caught:
        load_onnx_model(path)
    said = str(caught.value)
    assert said.startswith(f"{path}") and what in said, said


def node_named(model: Any, part: str, op: str = "") -> Any:
    return next(node for node in model.graph.node if part in node.name and node.op_type.startswith(op))


def before(model: Any, node: Any, op: str, at: int = 0, **attributes: Any) -> None:
    """Put a node of kind `op` before an input of `node`."""
    place, name = list(model.graph.node).index(node), f"put/{op}"
    node.input[at], source = name, node.input[at]
    model.graph.node.insert(place, helper.make_node(op, [source], [name], name=f"/put_{op}", **attributes))
