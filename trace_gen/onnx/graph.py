"""An ONNX graph as data: nodes in their order, and the tensors that the file holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any

from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.records import dataclass

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators; that of ONNX's is empty."""
FLOATS = {1: 32, 10: 16, 16: 16}
"""ONNX's data types of plain weights -> bits: FLOAT, FLOAT16, BFLOAT16 (TensorProto.DataType)."""
NARROW = {2: 8, 3: 8, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4}
"""Those of quantised weights: UINT8, INT8, four FLOAT8s, UINT4, INT4, FLOAT4E2M1."""
INTEGERS = {6: 32, 7: 64}
"""Those of token ids: INT32, INT64."""

Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that the file holds: its sizes, its data type, and its value where that is small and not elsewhere."""

    dims: tuple[int, ...]
    dtype: int
    value: Values | None = None

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.dims)


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the graph; a size is a number, a name, or None where the file says nothing of it."""

    dims: tuple[int | str | None, ...] | None
    dtype: int


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node. `key` is equal for nodes that do the same to their inputs; `proto` is ONNX's own record."""

    index: int
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    key: bytes
    proto: Any = None

    def input(self, at: int) -> str:
        """Return the name of an input, empty where it is not given."""
        return self.inputs[at] if at < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        value = self.attributes.get(name, default)
        return int(value) if isinstance(value, int) else default

    @property
    def title(self) -> str:
        """What errors call it."""
        called = self.name or next(filter(None, self.outputs), f"number {self.index}")
        return f"node {called[:120]!r} ({self.op})"


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of a file, each after those whose outputs it reads; `opset` is the version of ONNX's operators."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    opset: int

    @cached_property
    def producer(self) -> dict[str, Node]:
        """The node that makes a tensor, by the tensor's name."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def refusal(node: Node | None, what: str, fix: str = "") -> UserError:
    """Return the error for something that cannot be modelled; the reader adds the file."""
    return UserError(what, fix=fix, field=None if node is None else node.title)
