"""Shapes and small values of tensors, worked out where they are asked for.

Sizes that the file leaves open get numbers of their own, so that they can be told from those of the model. ONNX's own
shape inference and reference operators do the work, a node at a time: exporters compute shapes with operators, which
shape inference of a whole graph does not follow.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from trace_gen.onnx.flow import is_cache, token_ids
from trace_gen.onnx.graph import MICROSOFT, Graph, Node, Values
from trace_gen.onnx.reading import MOST_VALUES

if TYPE_CHECKING:
    from onnx import TypeProto

BATCH, TOKENS, PAST = 1009, 1013, 2026
"""Sizes of the batch, of new and of past tokens where they are open: primes or double ones, unlike a model's sizes."""


class Evaluation:
    """Works out tensors of one graph; what is known is kept."""

    def __init__(self, graph: Graph, embedding: Node) -> None:
        self.graph = graph
        self.sizes = _open_sizes(graph, token_ids(graph, embedding))
        self._types: dict[str, TypeProto | None] = {}
        self._values: dict[str, Values | None] = {}
        self._done: set[int] = set()
        self.evaluated = 0
        for name, tensor in graph.tensors.items():
            self._types[name], self._values[name] = _type(tensor.dtype, tensor.dims), tensor.value
        for name, dims in self.sizes.items():
            self._types[name] = _type(graph.inputs[name].dtype, dims)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the sizes of a tensor, None where they cannot be told."""
        self._work_out(name)
        return _dims(self._types.get(name))

    def size(self, name: str) -> int | None:
        """Return the elements of a tensor, None where they cannot be told."""
        dims = self.shape(name)
        return None if dims is None else prod(dims)

    def dtype(self, name: str) -> int:
        """Return the data type of a tensor as ONNX numbers them, 0 where it cannot be told."""
        self._work_out(name)
        made = self._types.get(name)
        return 0 if made is None else int(made.tensor_type.elem_type)

    def _work_out(self, name: str) -> None:
        for node in self._needed(name):
            self._done.add(node.index)
            self._evaluate(node)
            self.evaluated += 1

    def _needed(self, name: str) -> Iterable[Node]:
        """Return the nodes before a tensor that are not done, in order."""
        producer, found, open_names = self.graph.producer, {}, [name]
        while open_names:
            node = producer.get(open_names.pop())
            if node is not None and node.index not in self._done and node.index not in found:
                found[node.index] = node
                open_names.extend(filter(None, node.inputs))
        return [found[index] for index in sorted(found)]

    def _evaluate(self, node: Node) -> None:
        types = self._inferred(node)
        for name in filter(None, node.outputs):
            self._types[name] = types.get(name)
        values = self._computed(node)
        if values is not None:
            for name, value in zip(node.outputs, values, strict=False):
                self._values[name] = value
                self._types[name] = _type(_number(value), value.shape)

    def _inferred(self, node: Node) -> dict[str, Any]:
        from onnx import defs, helper
        from onnx.numpy_helper import from_array
        from onnx.shape_inference import infer_node_outputs

        if node.proto is None or node.domain == MICROSOFT or not defs.has(node.op, node.domain):
            return self._like_first(node)
        known = {name: made for name in node.inputs if name and (made := self._types.get(name)) is not None}
        if len(known) < len(set(filter(None, node.inputs))):
            return {}
        data = {name: value for name in known if (value := self._values.get(name)) is not None}
        try:
            schema = defs.get_schema(node.op, self.graph.opset, node.domain)
            given = {name: from_array(np.asarray(value)) for name, value in data.items()}
            opsets = [helper.make_opsetid("", self.graph.opset)]
            return infer_node_outputs(schema, node.proto, known, given, opset_imports=opsets)
        except Exception:  # others' code, which raises much: what it cannot tell is not known
            return {}

    def _like_first(self, node: Node) -> dict[str, Any]:
        """Operators that ONNX does not describe: the sizes of their first input, but for a product's outputs."""
        made = self._types.get(node.input(0))
        dims = _dims(made)
        if made is None or dims is None or not node.outputs:
            return {}
        if node.op == "MatMulNBits":
            dims = (*dims[:-1], node.integer("N", 0))
        return {node.outputs[0]: _type(int(made.tensor_type.elem_type), dims)}

    def _computed(self, node: Node) -> list[Values] | None:
        """Return the outputs of a node where its inputs are known and all of them are small."""
        if node.op == "Shape" and not node.domain and node.inputs:
            dims = _dims(self._types.get(node.inputs[0]))
            if dims is None:
                return None
            return [np.asarray(dims[_from_to(node, len(dims))], dtype=np.int64)]
        given = {name: self._values.get(name) for name in node.inputs if name}
        if node.domain or node.proto is None or any(value is None for value in given.values()):
            return None
        if not all(self._is_small(name) for name in filter(None, node.outputs)):
            return None
        return self._run(node, {name: value for name, value in given.items() if value is not None})

    def _is_small(self, name: str) -> bool:
        dims = _dims(self._types.get(name))
        return dims is not None and prod(dims) <= MOST_VALUES

    def _run(self, node: Node, given: dict[str, Values]) -> list[Values] | None:
        from onnx.reference import ReferenceEvaluator

        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                made = ReferenceEvaluator(node.proto, opsets={"": self.graph.opset}).run(None, given)
        except Exception:  # others' code, too
            return None
        arrays = [np.asarray(value) for value in made]
        return arrays if all(value.size <= MOST_VALUES for value in arrays) else None


def _from_to(node: Node, rank: int) -> slice:
    return slice(node.integer("start", 0), node.integer("end", rank))


def _number(value: Values) -> int:
    from onnx.helper import np_dtype_to_tensor_dtype

    return int(np_dtype_to_tensor_dtype(value.dtype))


def _type(dtype: int, dims: Iterable[int]) -> TypeProto:
    from onnx.helper import make_tensor_type_proto

    return make_tensor_type_proto(dtype, list(dims))


def _dims(made: TypeProto | None) -> tuple[int, ...] | None:
    if made is None or not made.HasField("tensor_type") or not made.tensor_type.HasField("shape"):
        return None
    sizes = made.tensor_type.shape.dim
    return tuple(int(one.dim_value) for one in sizes) if all(one.HasField("dim_value") for one in sizes) else None


def _open_sizes(graph: Graph, ids: str) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the graph's inputs, with numbers for those that are open.

    The ids' are batch and tokens. Other names: of a cache, the past; of masks and positions, what is past and new
    together unless they share the ids' names.
    """
    named: dict[str, int] = {}
    given = graph.inputs[ids].dims or (None, None)
    first = (BATCH, TOKENS) if len(given) == 2 else (TOKENS,) * len(given)
    found = {ids: tuple(_settle(size, number, named) for size, number in zip(given, first, strict=True))}
    caches = [name for name in graph.inputs if is_cache(graph, name)]
    for name in caches:
        found[name] = tuple(_settle(size, PAST, named) for size in graph.inputs[name].dims or ())
    total = sum(sizes[-1] for sizes in (found[ids],)) + (PAST if caches else 0)
    for name, one in graph.inputs.items():
        if name not in found and one.dims is not None:
            found[name] = tuple(
                _settle(size, found[ids][0] if at == 0 and len(one.dims or ()) > 1 else total, named)
                for at, size in enumerate(one.dims)
            )
    return found


def _settle(size: int | str | None, number: int, named: dict[str, int]) -> int:
    if isinstance(size, int):
        return size
    return number if size is None else named.setdefault(size, number)
