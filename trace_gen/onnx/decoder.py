"""A graph's branches, head and numbers -> `ModelArchitecture`; with `branches` all that knows what that can say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from foundation.errors import UserError
from foundation.printable import printable
from foundation.records import dataclass
from trace_gen.architecture import Layer, ModelArchitecture, layer_runs, quantized
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS
from trace_gen.mlp.dense import DenseMlp
from trace_gen.onnx.branches import Examiner, Part
from trace_gen.onnx.evaluation import Evaluation
from trace_gen.onnx.flow import FUSED_ATTENTION, PRODUCTS, Flow, embedding_table, follow
from trace_gen.onnx.graph import FLOATS, Graph, refusal
from trace_gen.onnx.matrices import Projection, Stored
from trace_gen.onnx.reading import read_graph
from trace_gen.onnx.regions import MOVES
from trace_gen.quantization import Quantization, Scheme
from trace_gen.quantization import Stored as StoredRoles

METHOD = "onnx"
"""What quantisation by the nodes of a graph is called."""
OPEN_POSITIONS = 131_072
"""Positions of a graph that nothing bounds (rotary ones are computed): as many as the longest of the shipped models."""
_WORK = (PRODUCTS | FUSED_ATTENTION | {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}) - {"MatMul", "Gemm"}
"""Operators that are more than moves and element-wise work; products are looked at by their sizes."""
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Matrices that engines store as one."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """What a file holds: the model, and how many different branches had to be examined for it."""

    architecture: ModelArchitecture
    examined: int


def read_decoder(path: Path) -> Decoder:
    """Return the decoder in an ONNX file. Raises `UserError` with the file, and the node that has no place."""
    try:
        graph = read_graph(path)
        return _Reading(graph, follow(graph)).decoder(_name(path))
    except UserError as error:
        if error.path is not None:
            raise
        raise UserError(error.what, fix=error.fix, path=path, field=error.field) from error


def _name(path: Path) -> str:
    """Return the model's name: the file's, or its folder's where it is called model.onnx."""
    return printable(path.resolve().parent.name if path.name == "model.onnx" else path.stem)


class _Reading:
    """One graph on its way to an architecture."""

    def __init__(self, graph: Graph, flow: Flow) -> None:
        self.graph, self.flow = graph, flow
        self.table = graph.tensors[embedding_table(graph, flow.embedding)]
        self.vocabulary, self.hidden = self.table.dims
        self.evaluation = Evaluation(graph, flow.embedding)
        self.examiner = Examiner(flow, self.evaluation, self.hidden)

    def decoder(self, name: str) -> Decoder:
        """Return the whole decoder."""
        logits, head = self._head()
        self._check_aside(self._used(logits))
        rows = self._position_rows()
        parts = {one.signature: one for one in self.flow.branches[::-1]}
        known = {signature: self.examiner.examine(branch) for signature, branch in reversed(parts.items())}
        sequence = [known[branch.signature] for branch in self.flow.branches]
        layers = list(self._layers(sequence))
        norms = {part.norm for part in sequence} | {self.examiner.normed([head], "before the LM head")}
        if len(norms) != 1:
            raise refusal(None, "some norms are RMSNorms and some LayerNorms: not modelled")
        stored = [part.stored for part in sequence]
        architecture = ModelArchitecture(
            name=name,
            model_type="onnx",
            hidden_size=self.hidden,
            runs=layer_runs(layers),
            vocab_size=self.vocabulary,
            max_position=rows or self._rotary_rows() or OPEN_POSITIONS,
            norm=norms.pop(),
            tie_word_embeddings=head.root == embedding_table(self.graph, self.flow.embedding),
            position_rows=rows,
            bits=self._bits([*stored, {"lm_head": head.stored}]),
        )
        return Decoder(quantized(architecture, _quantization([*stored, {"lm_head": head.stored}])), len(known))

    def _layers(self, sequence: list[Part]) -> Iterator[Layer]:
        """Yield the layers: an attention and an MLP each."""
        if len(sequence) > 2 * MOST_LAYERS:
            raise refusal(None, f"{len(sequence) // 2} layers; at most {MOST_LAYERS} are read")
        if len(sequence) % 2 or not sequence:
            raise refusal(None, f"{len(sequence)} additions to the hidden state: two a layer are expected")
        for at in range(0, len(sequence), 2):
            attention, mlp = sequence[at].core, sequence[at + 1].core
            if not isinstance(attention, GroupedAttention) or not isinstance(mlp, DenseMlp):
                node = self.flow.branches[at].node
                raise refusal(node, f"layer {at // 2} is not attention followed by an MLP: not modelled")
            yield Layer(attention, mlp)

    def _head(self) -> tuple[str, Projection]:
        """Return the output that holds the logits, and the projection that makes them."""
        candidates = [name for name in self.graph.outputs if self._reads_all(name)]
        named = [name for name in candidates if name == "logits"]
        if len(named or candidates) != 1:
            found = ", ".join(candidates) or "none"
            fix = "export it with its LM head, and without hidden states"
            raise refusal(
                None, f"outputs made of the last hidden state: {found[:200]}; the logits alone are expected", fix
            )
        logits = (named or candidates)[0]
        head, bias = self.examiner.projected(logits, "between the LM head and the logits")
        if bias:
            raise refusal(head.node, "a bias of the LM head is not modelled")
        if head.outputs != self.vocabulary:
            what = f"an LM head of {head.outputs} outputs for an embedding of {self.vocabulary} rows"
            raise refusal(head.node, f"{what}: not modelled")
        return logits, head

    def _reads_all(self, name: str) -> bool:
        """Whether an output is made of the last hidden state, by way of whatever comes after it."""
        last, seen, names = len(self.flow.streams) - 1, {name}, [name]
        while names:
            at = names.pop()
            if self.flow.stream(at) is not None:
                if self.flow.stream(at) == last:
                    return True
                continue
            node = self.graph.producer.get(at)
            fresh = [one for one in self.flow.hidden_inputs(node) if one not in seen] if node else []
            seen.update(fresh)
            names.extend(fresh)
        return False

    def _before(self, names: list[str], stop: set[str]) -> set[str]:
        """Return the tensors that `names` are made of, themselves included, as far as those in `stop`."""
        found, left = set(stop), list(names)
        while left:
            name = left.pop()
            if name and name not in found:
                found.add(name)
                node = self.graph.producer.get(name)
                left.extend(node.inputs if node is not None else ())
        return found - stop

    def _used(self, logits: str) -> set[str]:
        """Return the tensors that the logits are made of.

        Work for other outputs is refused; moving keys and values into a cache is none.
        """
        used = self._before([logits], set())
        others = [name for name in self.graph.outputs if name != logits]
        for name in sorted(self._before(others, used)):
            node = self.graph.producer.get(name)
            fused = node is not None and any(one in used for one in node.outputs)
            if node is not None and self.flow.is_hidden(name) and node.op not in MOVES and not fused:
                what = "works for another output than the logits"
                raise refusal(node, f"{what}: not modelled", "export the decoder with its logits and its cache alone")
        return used

    def _check_aside(self, used: set[str]) -> None:
        """Refuse products that depend on positions or masks alone, but for outer ones, which make rotary angles."""
        for node in self.graph.nodes:
            name = next(filter(None, node.outputs), "")
            made = self.flow.made.get(name)
            if name not in used or self.flow.is_fixed(name) or self.flow.is_hidden(name) or made is None:
                continue
            if node.op in ("MatMul", "Gemm"):
                dims = self.evaluation.shape(node.inputs[0])
                if dims is None or dims[-1:] != (1,):
                    raise refusal(node, "a product that does not depend on the tokens is not modelled")
            elif node.op == "Einsum":
                self._check_outer(node.attributes.get("equation", b""), node.title)
            elif node.op in _WORK:
                raise refusal(node, "work that does not depend on the tokens is not modelled")

    def _check_outer(self, equation: object, title: str) -> None:
        text = equation.decode("ascii", "replace") if isinstance(equation, bytes) else str(equation)
        terms, _, out = text.replace(" ", "").partition("->")
        if not out or set(terms) - set(out) - {",", "."}:
            raise UserError("a product that does not depend on the tokens is not modelled", field=title)

    def _position_rows(self) -> int:
        """Return the rows of the learned position table, 0 where there is none."""
        if len(self.flow.positions) > 1:
            node = self.flow.positions[1][0]
            raise refusal(node, "more than one table is added to the embedding: not modelled")
        for node, added in self.flow.positions:
            found = self._before([added], set())
            tables = [one for name in found if (one := self.graph.tensors.get(name)) is not None and one.size > 1]
            tables = [one for one in tables if one.dtype in FLOATS and one.dims[-1:] == (self.hidden,)]
            if len(tables) != 1 or len(tables[0].dims) < 2:
                raise refusal(node, f"adds something other than a learned table of {self.hidden} columns: not modelled")
            return tables[0].size // self.hidden
        return 0

    def _rotary_rows(self) -> int:
        """Return the rows of the tables of rotary positions that the file holds, 0 where they are computed."""
        rows = [
            held.dims[0]
            for node in self.graph.nodes
            if node.op in ("RotaryEmbedding", "GroupQueryAttention")
            for name in node.inputs
            if (held := self.graph.tensors.get(name)) is not None and len(held.dims) == 2 and held.dtype in FLOATS
        ]
        return min(rows, default=0)

    def _bits(self, stored: list[Mapping[str, Stored]]) -> int:
        """Return the width of the numbers; matrices that are not quantised have the embedding's."""
        bits = FLOATS[self.table.dtype]
        for one in stored:
            for role, matrix in one.items():
                if matrix.bits != bits:
                    what = f"{role} is stored or multiplied in {matrix.bits} bits, the embedding in {bits}"
                    raise refusal(None, f"{what}: mixed widths are not modelled", "export it in one of the two")
        return bits


def _quantization(stored: list[Mapping[str, Stored]]) -> Quantization | None:
    """Return how the matrices are quantised, None where none is; those of a role are alike in all layers."""
    by_role: dict[str, set[Scheme | None]] = {}
    for one in stored:
        for role, matrix in one.items():
            by_role.setdefault(role, set()).add(matrix.quantized)
    found = {scheme for schemes in by_role.values() for scheme in schemes if scheme is not None}
    if not found:
        return None
    mixed = [role for role, schemes in by_role.items() if len(schemes) > 1]
    if len(found) > 1 or mixed:
        what = f"{', '.join(mixed)} in some layers" if mixed else "matrices"
        raise refusal(None, f"{what} quantised in several ways: not modelled", "quantise all alike")
    plain = {role for role, schemes in by_role.items() if schemes == {None}}
    for roles in _TOGETHER:
        if 0 < len(plain.intersection(roles)) < len(set(roles) & set(by_role)):
            raise refusal(None, f"only some of {', '.join(roles)} are quantised: engines store them as one")
    return Quantization(METHOD, (StoredRoles(frozenset(by_role.keys() - plain), found.pop()),))
