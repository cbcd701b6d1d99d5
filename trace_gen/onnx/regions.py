"""What stands between two products: walked back, and taken for a norm, rotary positions, an activation, or refused.

A region is the nodes before a tensor as far as the products, softmaxes and streams that it is made of. Element-wise
operators of a region become the one operator that an engine fuses them into; what only moves elements about is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from foundation.records import dataclass
from trace_gen.architecture import NormKind
from trace_gen.onnx.evaluation import Evaluation
from trace_gen.onnx.flow import FUSED_ATTENTION, PRODUCTS, Flow
from trace_gen.onnx.graph import Node, refusal

MOVES = frozenset(
    {
        *("Identity", "Cast", "CastLike", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"),
        *("Split", "Slice", "Concat", "Expand", "Gather", "Tile", "QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators that move elements about, or change how they are written."""
ACTIVATIONS = frozenset(
    {
        *("Sigmoid", "Tanh", "Erf", "Relu", "Softplus", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Swish"),
        *("Mul", "Add", "Sub", "Div", "Pow", "Neg", "Exp", "Reciprocal", "Elu", "LeakyRelu", "HardSwish", "Mish"),
    }
)
NORMS = {
    "LayerNormalization": NormKind.LAYER,
    "RMSNormalization": NormKind.RMS,
    "SimplifiedLayerNormalization": NormKind.RMS,
}
_NORM_STEPS = frozenset({"Pow", "Mul", "ReduceMean", "Add", "Sub", "Sqrt", "Div", "Reciprocal", *NORMS})
_ROTARY = frozenset({"RotaryEmbedding"})
_ROTATES = frozenset({"Mul", "Add", "Sub", "Neg"})
_ENDS = frozenset({*PRODUCTS, *FUSED_ATTENTION, "Softmax"})
_REARRANGES = frozenset({"Split", "Slice", "Concat", "Expand", "Gather", "Tile"})
_REASONS = {
    **dict.fromkeys(("TopK", "MoE", "QMoE", "ScatterND", "ScatterElements", "NonZero"), "a mixture of experts"),
    **dict.fromkeys(("Conv", "ConvTranspose"), "a convolution"),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "CumSum"), "a recurrence"),
    "Tanh": "soft-capping",
    "Concat": "attention sinks",
}
"""What operators that have no place usually are part of."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """`nodes` in order; `ends`: the products and softmaxes that it begins with; `streams`: those that it reads."""

    nodes: tuple[Node, ...]
    ends: tuple[Node, ...]
    streams: frozenset[int]

    def works(self) -> Iterator[Node]:
        """Yield the nodes that compute something."""
        return (node for node in self.nodes if node.op not in MOVES)

    def only(self, allowed: frozenset[str], where: str, *, whole: bool = False) -> None:
        """Refuse whatever is neither `allowed` nor moves elements about; `whole`: none may come or go, either."""
        for node in self.nodes:
            if node.op not in allowed and (node.op not in MOVES or (whole and node.op in _REARRANGES)):
                guess = _REASONS.get(node.op)
                part = f" (part of {guess}?)" if guess else ""
                raise refusal(node, f"{node.op} {where} is not modelled{part}")


class Walker:
    """Walks back through one graph."""

    def __init__(self, flow: Flow, evaluation: Evaluation) -> None:
        self.flow, self.evaluation = flow, evaluation

    def back(self, name: str) -> Region:
        """Return the region before a tensor."""
        producer = self.flow.graph.producer
        nodes: dict[int, Node] = {}
        ends: dict[int, Node] = {}
        streams = set()
        names, seen = [name], {name}
        while names:
            at = names.pop()
            stream, node = self.flow.stream(at), producer.get(at)
            if stream is not None:
                streams.add(stream)
            elif node is not None and node.op in _ENDS:
                ends[node.index] = node
            elif node is not None:
                nodes[node.index] = node
                fresh = [one for one in self.flow.hidden_inputs(node) if one not in seen]
                seen.update(fresh)
                names.extend(fresh)
        ordered = tuple(nodes[index] for index in sorted(nodes))
        return Region(ordered, tuple(ends[index] for index in sorted(ends)), frozenset(streams))

    def others(self, node: Node) -> Iterator[tuple[str, int | None]]:
        """Yield the inputs of an element-wise node that do not depend on the tokens, with their elements."""
        for name in node.inputs:
            if name and not self.flow.is_hidden(name):
                yield name, self.evaluation.size(name)

    def vectors(self, nodes: Iterable[Node]) -> list[tuple[Node, int | None]]:
        """Return the inputs of element-wise `nodes` that do not depend on the tokens and are no single number, with
        their elements."""
        return [
            (node, size) for node in nodes for _, size in self.others(node) if node.op != "ReduceMean" and size != 1
        ]

    def norm(self, region: Region, width: int, where: str) -> NormKind:
        """Return which norm over `width` elements a region is."""
        region.only(_NORM_STEPS, where)
        works = list(region.works())
        fused = [node for node in works if node.op in NORMS]
        means = [node for node in works if node.op == "ReduceMean"]
        if len(fused) + (1 if means else 0) != 1 or len(means) > 2 or (fused and len(works) > 1):
            first = works[0] if works else None
            found = "several norms" if works else "no norm"
            raise refusal(first, f"{found} {where}: one is expected")
        differs = any(node.op == "Sub" for node in works)
        kind = NORMS[fused[0].op] if fused else NormKind.LAYER if differs else NormKind.RMS
        sizes = [size for _, size in self.vectors(works)]
        expected = [width] * (2 if kind is NormKind.LAYER else 1)
        if sizes != expected:
            told = f"parameters of sizes {sizes}, expected {expected}"
            raise refusal(works[0], f"a norm {where} has {told}: other forms are not modelled")
        return kind

    def rotates(self, region: Region, head_dim: int) -> tuple[bool, bool]:
        """Return whether a region between a projection and attention rotates positions in, and normalises heads.

        Scales by a single number go into attention's own; biases are the projections'.
        """
        region.only(_NORM_STEPS | _ROTATES | _ROTARY, "between a projection of queries, keys or values and attention")
        rotary = any(node.op in _ROTARY or self._by_table(node, head_dim) for node in region.works())
        normed = any(node.op in NORMS or node.op == "ReduceMean" for node in region.works())
        return rotary, normed

    def _by_table(self, node: Node, head_dim: int) -> bool:
        """Whether a node multiplies by a table of positions: neither a number nor a norm's weights."""
        if node.op != "Mul" or len(self.flow.hidden_inputs(node)) != 1:
            return False
        name, size = next(self.others(node))
        return size is None or (size != 1 and not (self.flow.is_fixed(name) and size == head_dim))
