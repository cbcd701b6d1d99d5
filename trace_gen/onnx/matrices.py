"""Projections: products of something hidden with a matrix of the file, and how the matrix is stored.

A quantised matrix is one behind a `DequantizeLinear`, or that of onnxruntime's `MatMulNBits`. Scales and zero points
are counted as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.fields import LARGEST
from foundation.records import dataclass
from trace_gen.onnx.evaluation import Evaluation
from trace_gen.onnx.flow import Flow
from trace_gen.onnx.graph import FLOATS, NARROW, Graph, Node, refusal
from trace_gen.precision import Arithmetic
from trace_gen.quantization import Scheme

_MOVED = frozenset({"Identity", "Cast", "Transpose", "Reshape"})
"""What may stand between a matrix and its product without changing what is stored."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How a matrix is stored: plain with `bits` a number, or as `quantized` says."""

    bits: int
    quantized: Scheme | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """`node` multiplies tensor `source` by a matrix of `inputs` x `outputs`; `bias`: and adds a vector.

    `root` is the tensor of the file that holds the matrix.
    """

    node: Node
    source: str
    inputs: int
    outputs: int
    bias: bool
    stored: Stored
    root: str


def projection(flow: Flow, evaluation: Evaluation, node: Node) -> Projection:
    """Return what `node` multiplies by; a product of another kind is a `UserError`."""
    if node.op == "MatMulNBits":
        return _packed(flow, node)
    if node.op not in ("MatMul", "Gemm") or node.domain:
        fix = "export it with MatMul, and weights quantised by DequantizeLinear or MatMulNBits"
        raise refusal(node, "this kind of product is not modelled", fix)
    if not (flow.is_hidden(node.input(0)) and flow.is_fixed(node.input(1))):
        raise refusal(node, "multiplies what depends on the tokens by what is neither that nor a weight")
    dims = evaluation.shape(node.inputs[1])
    if dims is None or len(dims) != 2:
        raise refusal(node, "multiplies by weights that are no matrix" if dims else "multiplies by unknown weights")
    if not all(1 <= size <= LARGEST for size in dims):
        raise refusal(node, f"multiplies by a matrix of sizes {dims}: each is from 1 to {LARGEST}")
    inputs, outputs = dims[::-1] if node.integer("transB", 0) else dims
    if node.integer("transA", 0) or node.attributes.get("alpha", 1.0) != 1.0:
        raise refusal(node, "a product that transposes or scales its input is not modelled")
    bias = bool(node.input(2))
    if bias and evaluation.size(node.inputs[2]) != outputs:
        raise refusal(node, f"adds something other than a vector of {outputs} elements")
    matrix = _Matrix(flow.graph, evaluation, node)
    stored, root = matrix.stored(outputs)
    return Projection(node, node.inputs[0], inputs, outputs, bias, _multiplied(flow, node, stored), root)


def _multiplied(flow: Flow, node: Node, stored: Stored) -> Stored:
    """Return how the matrix is stored; where its input goes through 8 bits, the two are multiplied in these."""
    before = flow.graph.producer.get(node.inputs[0])
    if stored.quantized is None or before is None or before.op != "DequantizeLinear":
        return stored
    dequantized = replace(stored.quantized, arithmetic=Arithmetic.EIGHT)
    return replace(stored, quantized=dequantized)


def _packed(flow: Flow, node: Node) -> Projection:
    """onnxruntime's `MatMulNBits`: input, packed weights, scales, zero points, group index, bias."""
    inputs, outputs, group = (node.integer(name, 0) for name in ("K", "N", "block_size"))
    bits = node.integer("bits", 4)
    weights, scales = (flow.graph.tensors.get(node.input(at)) for at in (1, 2))
    sizes = all(1 <= size <= LARGEST for size in (inputs, outputs, group))
    packed = weights is not None and sizes and bits in (4, 8)
    if not packed or weights is None or scales is None or scales.dtype not in FLOATS:
        raise refusal(node, "weights, scales and sizes of another form than 4 or 8 bits in blocks of inputs")
    if weights.size * 8 != outputs * -(-inputs // group) * group * bits:
        raise refusal(node, f"{weights.size} bytes of weights, which {inputs} x {outputs} of {bits} bits do not have")
    zero_bits, index_bits = (bits if node.input(3) else 0), (32 if node.input(4) else 0)
    scale_bits = FLOATS[scales.dtype]
    quantized = Scheme(bits, (group, 1), scale_bits=scale_bits, zero_bits=zero_bits, index_bits=index_bits)
    return Projection(
        node, node.inputs[0], inputs, outputs, bool(node.input(5)), Stored(scale_bits, quantized), node.inputs[1]
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Matrix:
    """The second input of a product, back to the tensor that the file holds."""

    graph: Graph
    evaluation: Evaluation
    node: Node

    def stored(self, outputs: int) -> tuple[Stored, str]:
        """Return how it is stored, and the tensor that holds it."""
        for name, maker in self._back(self.node.inputs[1]):
            if maker is None:
                return Stored(self._plain(name)), name
            if maker.op == "DequantizeLinear":
                root = self._last(maker.inputs[0])
                return self._quantized(maker, root, outputs), root
            if maker.op not in _MOVED:
                raise refusal(self.node, f"multiplies by a matrix that is made by {maker.title}")
        raise AssertionError  # _back ends with a tensor that nothing makes

    def _back(self, name: str) -> Iterator[tuple[str, Node | None]]:
        while (maker := self.graph.producer.get(name)) is not None:
            yield name, maker
            name = maker.input(0)
        yield name, None

    def _last(self, name: str) -> str:
        for last, maker in self._back(name):
            if maker is not None and maker.op not in _MOVED:
                raise refusal(self.node, f"multiplies by a matrix that is made by {maker.title}")
            name = last
        return name

    def _plain(self, name: str) -> int:
        held = self.graph.tensors.get(name)
        if held is None or held.dtype not in FLOATS:
            raise refusal(self.node, "multiplies by weights that are no floating-point numbers of 16 or 32 bits")
        return FLOATS[held.dtype]

    def _quantized(self, node: Node, root: str, outputs: int) -> Stored:
        held = self.graph.tensors.get(root)
        scale = self.evaluation.shape(node.input(1))
        width = FLOATS.get(self.evaluation.dtype(node.input(1)))
        if held is None or held.dtype not in NARROW or scale is None or width is None or len(held.dims) != 2:
            raise refusal(node, "a matrix of another form than 4 or 8 bits with scales of 16 or 32")
        bits = NARROW[held.dtype]
        given = Scheme(bits, scale_bits=width, zero_bits=bits if node.input(2) else 0)
        return Stored(width, self._in_blocks(given, node, held.dims, scale, outputs))

    def _in_blocks(
        self, given: Scheme, node: Node, dims: tuple[int, ...], scale: tuple[int, ...], outputs: int
    ) -> Scheme:
        """Return `given` with what shares a scale: all, an output, or a block of inputs of an output."""
        if all(size == 1 for size in scale):
            return given
        axis = node.integer("axis", 1) % 2
        along_outputs = self._outputs_at(dims) == axis
        if len(scale) == 1 and scale[0] == dims[axis]:
            return replace(given, block=(None, 1) if along_outputs else (1, None))
        group = node.integer("block_size", 0)
        if len(scale) == 2 and group > 0 and not along_outputs and scale[1 - axis] == outputs:
            return replace(given, block=(group, 1))
        raise refusal(node, f"scales of sizes {scale} for a matrix of sizes {dims} are not modelled")

    def _outputs_at(self, dims: tuple[int, ...]) -> int:
        """Return which size of the tensor in the file is that of the outputs: transposing moves it."""
        turned = bool(self.node.integer("transB", 0))
        for _, maker in self._back(self.node.inputs[1]):
            if maker is not None and maker.op == "Transpose":
                turned = not turned
        return 0 if turned else 1
