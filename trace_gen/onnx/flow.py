"""What depends on the tokens, the residual stream through the layers, and the branches that add to it.

A tensor is fixed (made of what the file holds), aside (made of positions, masks, the cache and shapes), or hidden (made
of the embedded tokens). The stream is the embedding and every sum of it with a branch:

    stream 0 = embedding [+ positions]    stream n + 1 = stream n + branch n (streams that it reads)

Tensors are numbered by how they are made: a stream is a stream, a weight its sizes, type and place in its branch,
whatever its name. So branches with equal numbers are equal graphs: the repeated block is found, and looked at once.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import field
from enum import IntEnum

from foundation.fields import LARGEST
from foundation.records import dataclass
from trace_gen.onnx.graph import FLOATS, INTEGERS, MICROSOFT, NARROW, Graph, Node, refusal

PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "MatMulNBits", "MatMulInteger", "QLinearMatMul"})
"""Operators that multiply matrices."""
FUSED_ATTENTION = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention"})
_AS_IS = frozenset({"Identity", "Cast", "Dropout", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators behind which the stream is still the stream."""
_CACHE_RANK = 4
"""Sizes of a cache input at least: batch, heads, tokens, elements in some order."""


class Made(IntEnum):
    """What a tensor is made of."""

    FIXED = 0
    ASIDE = 1
    HIDDEN = 2


@dataclass(frozen=True, slots=True)
class Branch:
    """What is added to a stream by `node`: tensor `output`; `behind`: how many additions before it the streams that it
    reads were made (0: none); `number`: equal for equal branches."""

    node: Node
    output: str
    behind: tuple[int, ...]
    number: int

    @property
    def signature(self) -> tuple[int, tuple[int, ...]]:
        """What is equal for branches that are the same work."""
        return self.number, self.behind


@dataclass(eq=False)
class Flow:
    """What was found in a graph; `roots` are the tensors of the file that a fixed one is made of."""

    graph: Graph
    embedding: Node
    made: dict[str, Made] = field(default_factory=dict)
    roots: dict[str, tuple[str, ...]] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    positions: list[tuple[Node, str]] = field(default_factory=list)
    """Additions of what is aside to the embedding, and what is added."""
    _stream_of: dict[str, int] = field(default_factory=dict)
    _reads: dict[str, frozenset[int]] = field(default_factory=dict)
    _touches: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _known: dict[Hashable, int] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)
    _owners: dict[str, Node] = field(default_factory=dict)

    def is_hidden(self, name: str) -> bool:
        """Whether a tensor depends on the tokens."""
        return self.made.get(name) is Made.HIDDEN

    def is_fixed(self, name: str) -> bool:
        """Whether a tensor is made of what the file holds alone."""
        return self.made.get(name) is Made.FIXED

    def stream(self, name: str) -> int | None:
        """Return which stream a tensor is, None if it is none."""
        return self._stream_of.get(name)

    def hidden_inputs(self, node: Node) -> tuple[str, ...]:
        """Return the inputs of a node that depend on the tokens."""
        return tuple(name for name in node.inputs if self.is_hidden(name))

    def _number(self, key: Hashable) -> int:
        return self._known.setdefault(key, len(self._known))

    def start(self) -> None:
        """Take up what the file and its user give."""
        for name, tensor in self.graph.tensors.items():
            self.made[name] = Made.FIXED
            small = None if tensor.value is None or tensor.size > 64 else tensor.value.tobytes()
            self.roots[name] = (name,) if small is None else ()
            self._numbers[name] = self._number(("held", tensor.dims, tensor.dtype, small))
        for name, given in self.graph.inputs.items():
            self.made[name] = Made.ASIDE
            self._numbers[name] = self._number(("given", given.dims, "" if is_cache(self.graph, name) else name))

    def add(self, node: Node) -> None:
        """Take up a node, after all that it reads."""
        made = max((self.made[name] for name in node.inputs if name), default=Made.FIXED)
        if node.op in ("Shape", "Size") and made is Made.HIDDEN:
            made = Made.ASIDE
        if node is self.embedding:
            self._take(node, Made.HIDDEN, self._number("stream"))
            self._new_stream(node.outputs[0])
            return
        if made is Made.FIXED:
            copied = node.op == "Identity"
            number = self._numbers[node.inputs[0]] if copied else self._number((node.key, self._numbers_of(node)))
            self._take(node, made, number)
            roots = tuple(dict.fromkeys(root for name in node.inputs if name for root in self.roots[name]))
            self.roots.update(dict.fromkeys(node.outputs, roots))
            return
        self._take(node, made, self._number((node.key, self._numbers_of(node, placed=True))))
        if made is Made.HIDDEN:
            self._follow(node)

    def _take(self, node: Node, made: Made, number: int) -> None:
        for at, name in enumerate(node.outputs):
            if name:
                self.made[name] = made
                self._numbers[name] = number if at == 0 else self._number((number, at))

    def _numbers_of(self, node: Node, *, placed: bool = False) -> tuple[Hashable, ...]:
        """Return the numbers of a node's inputs; `placed`: weights are told apart by their place in the branch."""
        return tuple(self._input_number(name, placed) if name else None for name in node.inputs)

    def _input_number(self, name: str, placed: bool) -> Hashable:
        roots = self.roots.get(name, ())
        if not (placed and roots):
            return self._numbers[name]
        return self._numbers[name], tuple(self._places.setdefault(root, len(self._places)) for root in roots)

    def _follow(self, node: Node) -> None:
        """Follow the stream and its branches through a node that reads something hidden."""
        hidden = self.hidden_inputs(node)
        if node.op == "Add" and len(node.inputs) == 2 and self._adds_to_stream(node):
            return
        if len(hidden) == 1 and node.op in _AS_IS and hidden[0] in self._stream_of and hidden[0] == node.inputs[0]:
            self._stream_of[node.outputs[0]] = self._stream_of[hidden[0]]
        reads = frozenset().union(*(self._reads[name] for name in hidden))
        if node.op in PRODUCTS or node.op in FUSED_ATTENTION:
            touches = (False, True)
            self._own(node)
        else:
            stream, product = zip(*(self._touches[name] for name in hidden), strict=True)
            touches = (any(stream), any(product))
        for name in filter(None, node.outputs):
            self._reads[name], self._touches[name] = reads, touches

    def _own(self, node: Node) -> None:
        """Refuse a matrix that another product has: each is counted where it is used."""
        roots = self.roots.get(node.input(1), ()) if node.op in PRODUCTS else ()
        owner = self._owners.setdefault(roots[0], node) if roots else node
        if owner is not node:
            raise refusal(
                node, f"multiplies by the weights of {owner.title}: layers that share weights are not modelled"
            )

    def _adds_to_stream(self, node: Node) -> bool:
        one, other = node.inputs
        if other in self._stream_of or not self.is_hidden(one):
            one, other = other, one
        if not self.is_hidden(other):
            return self._adds_positions(node, one, other)
        if one not in self._stream_of:
            self._refuse_other_sums(node)
            return False
        if self._touches[other] != (False, True):
            return False
        latest = len(self.streams) - 1
        if self._stream_of[one] != latest:
            raise refusal(node, "adds to a hidden state that something was added to before: this is not modelled")
        behind = tuple(latest - read for read in sorted(self._reads[other]))
        self.branches.append(Branch(node, other, behind, self._numbers[other]))
        self._new_stream(node.outputs[0])
        return True

    def _adds_positions(self, node: Node, one: str, other: str) -> bool:
        """Whether a node adds what is aside to the embedding itself."""
        if self._stream_of.get(one) != 0 or len(self.streams) != 1:
            return False
        self.positions.append((node, other))
        self.streams.clear()
        self._new_stream(node.outputs[0])
        return True

    def _refuse_other_sums(self, node: Node) -> None:
        """Refuse a branch that is added to what was made of the stream without a product: a norm, a scale."""
        kinds = {self._touches[name] for name in node.inputs}
        if kinds == {(True, False), (False, True)}:
            what = "adds a branch to something that is made of the residual stream, not to the stream itself"
            raise refusal(node, f"{what}: post-norm blocks, scaled embeddings and residuals are not modelled")

    def _new_stream(self, name: str) -> None:
        self._stream_of[name] = len(self.streams)
        self.streams.append(name)
        self.made[name] = Made.HIDDEN
        self._numbers[name] = self._number("stream")
        self._reads[name] = frozenset({self._stream_of[name]})
        self._touches[name] = (True, False)
        self._places.clear()


def follow(graph: Graph) -> Flow:
    """Return what depends on what in `graph`. Raises `UserError` where there is no stream to follow."""
    flow = Flow(graph, find_embedding(graph))
    flow.start()
    for node in graph.nodes:
        flow.add(node)
    return flow


def is_cache(graph: Graph, name: str) -> bool:
    """Whether an input holds keys or values of earlier tokens: numbers of four sizes or more."""
    given = graph.inputs[name]
    return given.dims is not None and len(given.dims) >= _CACHE_RANK and given.dtype in {*FLOATS, *NARROW}


def find_embedding(graph: Graph) -> Node:
    """Return the node that looks up the tokens: of those with ids from an input, that of `input_ids`, else the one
    with the most rows."""
    lookups = [node for node in graph.nodes if _looks_up(graph, node)]
    if not lookups:
        fix = "export it from the token ids (not from inputs_embeds), with its embedding not quantised"
        raise refusal(None, "no embedding: nothing looks up rows of a matrix by an input of integers", fix)

    def rank(node: Node) -> tuple[bool, int]:
        return "input_ids" in _ids(graph, node), graph.tensors[_table(graph, node)].dims[0]

    return max(lookups, key=rank)


def embedding_table(graph: Graph, node: Node) -> str:
    """Return the tensor that a lookup reads rows of."""
    return _table(graph, node)


def token_ids(graph: Graph, node: Node) -> str:
    """Return the input that a lookup takes ids from."""
    return _ids(graph, node)


def _looks_up(graph: Graph, node: Node) -> bool:
    if node.op != "Gather" or node.domain == MICROSOFT or len(node.inputs) != 2 or node.integer("axis", 0) != 0:
        return False
    table = graph.tensors.get(_table(graph, node))
    if table is None or len(table.dims) != 2 or table.dtype not in FLOATS:
        return False
    if not all(1 <= size <= LARGEST for size in table.dims):
        return False
    ids = graph.inputs.get(_ids(graph, node))
    return ids is not None and ids.dtype in INTEGERS


def _table(graph: Graph, node: Node) -> str:
    return _behind(graph, node.inputs[0], ("Identity", "Cast"))


def _ids(graph: Graph, node: Node) -> str:
    return _behind(graph, node.inputs[1], (*_AS_IS,))


def _behind(graph: Graph, name: str, passed: tuple[str, ...]) -> str:
    """Return what a tensor is but for the operators `passed`."""
    while (made := graph.producer.get(name)) is not None and made.op in passed and made.inputs:
        name = made.inputs[0]
    return name
