"""What a batch costs by the papers: matrix and attention FLOPs, weights and messages of a deployment as a whole.

Nothing of Orrery is imported. Dimensions are typed in from the papers and model cards (`published`); formulas:

- a layer: 2 FLOPs a weight and token, 4 an element of the queries and pair of tokens (2 a score, 2 a weighted sum),
  Vaswani et al. 2017, "Attention Is All You Need"; grouped heads: Ainslie et al. 2023, "GQA"; windows: Beltagy et
  al. 2020, "Longformer"; blocks with attention and MLP side by side: Wang and Komatsuzaki 2021, "GPT-J-6B";
- tensor parallelism: matrices by columns, then by rows, an all-reduce of T h after each such pair, embedding and LM head
  by vocabulary (padded to a multiple of the ranks): Shoeybi et al. 2019, "Megatron-LM";
- pipelines: T h from each rank to its like in the next stage: Narayanan et al. 2021, "Efficient Large-Scale Language
  Model Training on GPU Clusters";
- mixtures: k of E experts a token: Fedus et al. 2021, "Switch Transformers"; two all-to-alls around experts on ranks:
  Lepikhin et al. 2020, "GShard"; tensor-parallel ranks each send an equal part of their tokens and gather the results:
  Singh et al. 2023, "A Hybrid Tensor-Expert-Data Parallelism Approach to Optimize Mixture-of-Experts Training".

Replicated by design, and so counted once a rank that has it: norms, position tables, routers, biases of matrices split
by rows, KV heads where there are more ranks than heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

BYTES = 2
"""A number, a weight and an entry of the KV cache are 16 bits."""
Message = tuple[str, int, int]
"""A collective: its kind, the ranks that take part, and the bytes of it in ASTRA-sim's meaning."""
Split = Literal["columns", "rows", "whole"]


@dataclass(frozen=True)
class Work:
    """One request of a batch: tokens in the cache, tokens computed, and how many of them are sampled."""

    context: int
    new: int
    samples: int = 1

    def pairs(self, window: int | None = None, chunk: int | None = None) -> int:
        """Pairs of a token and one that it attends to, itself included: all before, the last ones, or its chunk's."""
        seen = range(self.context + 1, self.context + self.new + 1)
        if chunk is not None:
            return sum((tokens - 1) % chunk + 1 for tokens in seen)
        return sum(tokens if window is None else min(tokens, window) for tokens in seen)


Batch = Sequence[Work]


def new_tokens(batch: Batch) -> int:
    """Tokens that `batch` computes."""
    return sum(work.new for work in batch)


@dataclass(frozen=True)
class Degrees:
    """How a model is spread: `expert` is 1, or all ranks of a stage, over which whole experts lie."""

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1

    @property
    def stage(self) -> int:
        """Ranks of a stage."""
        return self.tensor * self.data


class Storage(Protocol):
    """How a matrix is stored."""

    def bytes(self, inputs: int, outputs: int) -> int:
        """Bytes of a matrix."""


class Plain:
    """As all other numbers."""

    def bytes(self, inputs: int, outputs: int) -> int:
        """16 bits a weight."""
        return BYTES * inputs * outputs


@dataclass(frozen=True)
class Blocks:
    """8 bits a weight and 32 for each square of `side`: DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", 3.3."""

    side: int = 128

    def bytes(self, inputs: int, outputs: int) -> int:
        """Blocks at the edges are whole."""
        return inputs * outputs + 4 * ceil(inputs, self.side) * ceil(outputs, self.side)


class Microscaled:
    """MXFP4: 4 bits a weight and 8 for each 32 inputs of an output: OCP, "Microscaling Formats (MX) 1.0", 2023."""

    def bytes(self, inputs: int, outputs: int) -> int:
        """Scales of partial groups are whole."""
        return outputs * (ceil(inputs, 2) + ceil(inputs, 32))


PLAIN = Plain()


@dataclass(frozen=True)
class Matrix:
    """A projection, as all ranks of a member hold it together. `kept`: in 16 bits, whatever the others have."""

    inputs: int
    outputs: int
    split: Split = "columns"
    bias: bool = False
    kept: bool = False

    def flops(self, tokens: int, tensor: int) -> int:
        """FLOPs over the ranks: what is whole is computed by each, and so is a bias after a split by rows."""
        times, added = self._times(tensor)
        return tokens * (2 * self.inputs * self.outputs * times + self.outputs * self.bias * added)

    def bytes(self, tensor: int, storage: Storage) -> int:
        """Bytes over the ranks, each of which stores its part."""
        inputs = ceil(self.inputs, tensor) if self.split == "rows" else self.inputs
        outputs = ceil(self.outputs, tensor) if self.split == "columns" else self.outputs
        part = (PLAIN if self.kept else storage).bytes(inputs, outputs)
        return tensor * part + BYTES * self.outputs * self.bias * self._times(tensor)[1]

    def _times(self, tensor: int) -> tuple[int, int]:
        return (tensor if self.split == "whole" else 1), (1 if self.split == "columns" else tensor)


class Attention(Protocol):
    """Attention of one layer."""

    def matrices(self, hidden: int, batch: Batch, tensor: int) -> Iterable[tuple[Matrix, int]]:
        """Its projections that run, and for how many tokens."""

    def flops(self, work: Work) -> int:
        """FLOPs of one request's attention itself, over the ranks of a member."""

    @property
    def whole(self) -> int:
        """Weights that every rank holds: of norms inside."""

    @property
    def divided(self) -> int:
        """Weights beside the projections that ranks divide."""


@dataclass(frozen=True)
class Heads:
    """Query heads that share KV heads."""

    query: int
    kv: int
    width: int
    window: int | None = None
    bias: bool = False
    out_bias: bool = False
    chunk: int | None = None
    capped: bool = False
    whole: int = 0
    divided: int = 0

    def matrices(self, hidden: int, batch: Batch, tensor: int) -> Iterable[tuple[Matrix, int]]:
        """A rank holds at least one KV head."""
        kv = max(self.kv, tensor)
        yield Matrix(hidden, (self.query + 2 * kv) * self.width, bias=self.bias), new_tokens(batch)
        yield Matrix(self.query * self.width, hidden, "rows", self.out_bias), new_tokens(batch)

    def flops(self, work: Work) -> int:
        """A score and a weighted value for every pair and element of the queries; a cap: divided, its tanh, multiplied."""
        return self.query * (4 * self.width + 3 * self.capped) * work.pairs(self.window, self.chunk)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: DeepSeek-AI 2024, "DeepSeek-V2", section 2.1 (formulas 9 to 19) and appendix C.

    Prompts expand the latent vectors of all tokens attended to; decodes (one token) take queries and outputs through the
    halves of the expanding matrix instead, and attend to the latent vectors themselves.
    """

    heads: int
    query_rank: int | None
    rank: int
    nope: int
    rope: int
    value: int

    def matrices(self, hidden: int, batch: Batch, tensor: int) -> Iterable[tuple[Matrix, int]]:
        """Compressing matrices are whole on every rank."""
        tokens, decodes = new_tokens(batch), sum(work.new == 1 for work in batch)
        queries = self.heads * (self.nope + self.rope)
        if self.query_rank is None:
            yield Matrix(hidden, queries), tokens
        else:
            yield Matrix(hidden, self.query_rank, "whole"), tokens
            yield Matrix(self.query_rank, queries), tokens
        yield Matrix(hidden, self.rank + self.rope, "whole"), tokens
        if tokens > decodes:
            yield Matrix(self.rank, self.heads * (self.nope + self.value)), tokens - decodes
        if decodes:
            yield Matrix(self.nope, self.heads * self.rank, kept=True), decodes
            yield Matrix(self.rank, self.heads * self.value, kept=True), decodes
        yield Matrix(self.heads * self.value, hidden, "rows"), tokens

    def flops(self, work: Work) -> int:
        """Expanded, the context is projected up once more."""
        if work.new == 1:
            return 2 * self.heads * (2 * self.rank + self.rope) * work.pairs()
        again = 2 * self.rank * self.heads * (self.nope + self.value) * work.context
        return 2 * self.heads * (self.nope + self.rope + self.value) * work.pairs() + again

    @property
    def whole(self) -> int:
        """The norms of both compressed vectors."""
        return self.rank + (self.query_rank or 0)

    @property
    def divided(self) -> int:
        """Nothing."""
        return 0


@dataclass(frozen=True)
class Mlp:
    """Up (and gate), down."""

    width: int
    gated: bool = True
    bias: bool = False

    def matrices(self, hidden: int) -> Iterable[Matrix]:
        """Both projections."""
        yield Matrix(hidden, self.width * (2 if self.gated else 1), bias=self.bias)
        yield Matrix(self.width, hidden, "rows", self.bias)


@dataclass(frozen=True)
class Mixture:
    """`count` gated experts of `width`, `chosen` a token; shared ones of `shared` together; `router` scores a token.

    `granule`: a rank that has a part of an expert's width has a multiple of it, as formats of groups need.
    """

    count: int
    chosen: int
    width: int
    router: int
    shared: int = 0
    bias: bool = False
    router_bias: bool = False
    granule: int = 1

    def always(self, hidden: int) -> Iterable[Matrix]:
        """What every token goes through."""
        yield Matrix(hidden, self.router, "whole", self.router_bias, kept=True)
        if self.shared:
            yield from Mlp(self.shared).matrices(hidden)

    def flops(self, hidden: int, tokens: int, degrees: Degrees) -> int:
        """Routed experts', over the ranks that share them: each has its even share of the copies, rounded up."""
        if degrees.expert > 1:
            copies = degrees.expert * ceil(tokens * self.chosen, degrees.expert)
            return sum(matrix.flops(copies, 1) for matrix in self.expert(hidden, 1))
        return sum(matrix.flops(tokens * self.chosen, degrees.tensor) for matrix in self.expert(hidden, degrees.tensor))

    def bytes(self, hidden: int, degrees: Degrees, storage: Storage) -> int:
        """Of all routed experts: once on the ranks of a stage, or divided by width in each member."""
        tensor, copies = (1, 1) if degrees.expert > 1 else (degrees.tensor, degrees.data)
        return copies * self.count * sum(matrix.bytes(tensor, storage) for matrix in self.expert(hidden, tensor))

    def expert(self, hidden: int, tensor: int) -> Iterable[Matrix]:
        """The matrices of one expert, divided over `tensor` ranks."""
        width = ceil(self.width, self.granule * tensor) * self.granule * tensor
        return Mlp(width if tensor > 1 else self.width, bias=self.bias).matrices(hidden)


@dataclass(frozen=True)
class Block:
    """One kind of layer. `norms`: over the hidden state; `reduces_once`: attention and MLP side by side, added first."""

    attention: Attention
    mlp: Mlp | Mixture
    norms: int = 2
    reduces_once: bool = False


@dataclass(frozen=True)
class Model:
    """`layers`: (how many, kind) in order; `norm`: weight vectors of a norm; `positions`: rows of a learned table.

    `storage`: of the matrices of its layers; `experts`: of routed ones.
    """

    hidden: int
    vocabulary: int
    layers: tuple[tuple[int, Block], ...]
    norm: int = 1
    positions: int = 0
    head_bias: bool = False
    storage: Storage = PLAIN
    experts: Storage = PLAIN

    def blocks(self) -> Iterator[Block]:
        """Every layer."""
        for count, block in self.layers:
            yield from [block] * count

    @property
    def mixtures(self) -> bool:
        """Whether there are experts to spread."""
        return any(isinstance(block.mlp, Mixture) for _, block in self.layers)


@dataclass(frozen=True)
class Costs:
    """Over all ranks of a deployment, for one batch a member."""

    gemm: int
    grouped: int
    attention: int
    weights: int
    messages: Counter[Message]
    sends: Counter[int]


def costs(model: Model, members: Sequence[Batch], degrees: Degrees) -> Costs:
    """Return what the papers say of `members`, the batch of each data-parallel member."""
    tokens = [new_tokens(batch) for batch in members]
    gemm = grouped = attention = weights = 0
    messages: Counter[Message] = Counter()
    for block in model.blocks():
        whole = block.norms * model.norm * model.hidden + block.attention.whole
        weights += BYTES * degrees.data * (degrees.tensor * whole + block.attention.divided)
        for batch, own in zip(members, tokens, strict=True):
            attention += sum(block.attention.flops(work) for work in batch)
            for matrix, rows in _matrices(model, block, batch, degrees.tensor):
                gemm += matrix.flops(rows, degrees.tensor)
                weights += matrix.bytes(degrees.tensor, model.storage)
            messages.update(_reductions(model, block, own, degrees))
        if isinstance(block.mlp, Mixture):
            weights += block.mlp.bytes(model.hidden, degrees, model.experts)
            together = [sum(tokens)] if degrees.expert > 1 else tokens
            grouped += sum(block.mlp.flops(model.hidden, routed, degrees) for routed in together)
            messages.update(_exchanges(model, block.mlp, tokens, degrees))
    table, head = _ends(model, degrees.tensor)
    for batch in members:
        logits = sum(work.samples for work in batch)
        gemm += head.flops(logits, degrees.tensor)
        weights += table + head.bytes(degrees.tensor, PLAIN)
        messages.update(_of_ends(model, new_tokens(batch), logits, head, degrees))
    return Costs(gemm, grouped, attention, weights, messages, _sends(model, tokens, degrees))


def _matrices(model: Model, block: Block, batch: Batch, tensor: int) -> Iterator[tuple[Matrix, int]]:
    """Yield the matrices that a member's tokens go through, but for routed experts', and for how many of them."""
    yield from block.attention.matrices(model.hidden, batch, tensor)
    mlp = block.mlp
    for matrix in mlp.matrices(model.hidden) if isinstance(mlp, Mlp) else mlp.always(model.hidden):
        yield matrix, new_tokens(batch)


def _ends(model: Model, tensor: int) -> tuple[int, Matrix]:
    """Return the bytes of embedding, positions and final norm on a member's ranks, and its LM head."""
    head = Matrix(model.hidden, ceil(model.vocabulary, tensor) * tensor, bias=model.head_bias)
    whole = tensor * model.hidden * (model.positions + model.norm)
    return BYTES * (head.inputs * head.outputs + whole), head


def _of_ends(model: Model, tokens: int, logits: int, head: Matrix, degrees: Degrees) -> Iterator[Message]:
    """Yield the all-reduce of the embedding's parts, and the all-gather of logits."""
    if degrees.tensor > 1:
        yield "ALLREDUCE", degrees.tensor, tokens * model.hidden * BYTES
        yield "ALLGATHER", degrees.tensor, logits * head.outputs // degrees.tensor * BYTES


def _sends(model: Model, tokens: Sequence[int], degrees: Degrees) -> Counter[int]:
    """Return the bytes that ranks send to their like in the next stage, and how often."""
    found: Counter[int] = Counter()
    for own in tokens:
        found[own * model.hidden * BYTES] += degrees.tensor * (degrees.pipeline - 1)
    return +found


def _reductions(model: Model, block: Block, tokens: int, degrees: Degrees) -> Iterator[Message]:
    """Yield a layer's all-reduces over the tensor-parallel ranks of a member."""
    if degrees.tensor == 1:
        return
    message = ("ALLREDUCE", degrees.tensor, tokens * model.hidden * BYTES)
    yield message
    routed = isinstance(block.mlp, Mixture) and degrees.expert > 1
    shared = isinstance(block.mlp, Mixture) and block.mlp.shared > 0
    if not block.reduces_once and (not routed or shared):
        yield message


def _exchanges(model: Model, mixture: Mixture, tokens: Sequence[int], degrees: Degrees) -> Iterator[Message]:
    """Yield how tokens go to experts and back: the largest member's sizes, because all ranks carry equally much."""
    if degrees.expert == 1:
        return
    row = model.hidden * BYTES
    yield from [("ALLTOALL", degrees.stage, ceil(max(tokens) * mixture.chosen, degrees.tensor) * row)] * 2
    if degrees.tensor > 1:
        yield from (("ALLGATHER", degrees.tensor, ceil(own, degrees.tensor) * row) for own in tokens)


def ceil(value: int, divisor: int) -> int:
    """Return value / divisor, rounded up."""
    return -(-value // divisor)
