"""Decoders in ONNX files, mutated node by node; the onnx package is an extra that is loaded when it is needed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.readers.trace_gen import use
from benchmarks.fuzz.target import Target, targets
from trace_gen.models import load_onnx_model

_OPS = (
    *("Add", "MatMul", "Mul", "Softmax", "Reshape", "Shape", "Expand", "Gather", "Range", "ConstantOfShape", "Tile"),
    *("Identity", "Concat", "Split", "Transpose", "ReduceMean", "DequantizeLinear", "Gemm", "Where", "Einsum", "Pad"),
    *("SkipSimplifiedLayerNormalization", "MatMulNBits", "GroupQueryAttention", "Attention", "LayerNormalization"),
)
_SIZES = (0, 1, 2, 3, 8, 16, -1, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)


def mutate(content: bytes, random: Random) -> bytes:
    """Change nodes, tensors and sizes of a model; bytes where it is none."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        model = ModelProto()
    if not model.graph.node or random.random() < 0.1:
        at = random.randrange(len(content) + 1)
        return content[:at] + random.randbytes(random.randrange(3)) + content[at + random.randrange(3) :]
    for _ in range(random.choice((1, 1, 2, 4))):
        with suppress(UnicodeDecodeError):  # bytes changed before may have left a name that is no text
            _change(model, random)
    return bytes(model.SerializeToString())


def _change(model: Any, random: Random) -> None:
    graph = model.graph
    node = random.choice(graph.node)
    kind = random.randrange(9)
    if kind == 0 and len(graph.node) > 1:
        graph.node.remove(node)
    elif kind == 1:
        node.op_type = random.choice(_OPS)
    elif kind in (2, 3) and node.input:
        names = [name for one in graph.node for name in (*one.input, *one.output)]
        node.input[random.randrange(len(node.input))] = random.choice((*names, ""))
    elif kind == 4 and graph.initializer:
        held = random.choice(graph.initializer)
        held.data_type = random.choice((1, 2, 3, 6, 7, 10, 21, 22, 99))
    elif kind == 5 and graph.initializer:
        held = random.choice(graph.initializer)
        if held.dims:
            held.dims[random.randrange(len(held.dims))] = random.choice(_SIZES)
    elif kind == 6:
        for attribute in node.attribute:
            attribute.i = random.choice(_SIZES)
            attribute.ints[:] = [random.choice(_SIZES) for _ in attribute.ints]
            attribute.t.raw_data = random.choice(_SIZES).to_bytes(8, "little", signed=True)
    elif kind == 7:
        graph.node.add().CopyFrom(node)
    else:
        given = random.choice(graph.input).type.tensor_type if graph.input else None
        for size in given.shape.dim if given is not None else ():
            size.dim_value = random.choice(_SIZES)


def _read(path: Path) -> None:
    use(load_onnx_model(path))


targets.register("onnx")(Target("decoders in ONNX files", _read, "model.onnx", mutate=mutate))
