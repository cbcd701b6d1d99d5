"""What a batch costs by the papers: matrix and attention FLOPs, weights and messages of a deployment as a whole.

Nothing of Orrery is imported. Dimensions are typed in from the papers and model cards (`published`); formulas:

- a layer: 2 FLOPs a weight and token, 4 an element of the queries and pair of tokens (2 a score, 2 a weighted sum),
  Vaswani et al. 2017, "Attention Is All You Need"; grouped heads: Ainslie et al. 2023, "GQA"; windows: Beltagy et
  al. 2020, "Longformer"; blocks with attention and MLP side by side: Wang and Komatsuzaki 2021, "GPT-J-6B";
- tensor parallelism: matrices by columns, then by rows, an all-reduce of T h after each such pair, embedding and LM
  head by vocabulary (padded to a multiple of the ranks): Shoeybi et al. 2019, "Megatron-LM";
- pipelines: T h from each rank to its like in the next stage: Narayanan et al. 2021, "Efficient Large-Scale Language
  Model Training on GPU Clusters";
- mixtures: k of E experts a token: Fedus et al. 2021, "Switch Transformers"; two all-to-alls around experts on ranks:
  Lepikhin et al. 2020, "GShard"; tensor-parallel ranks each send an equal part of their tokens and gather the results:
  Singh et al. 2023, "A Hybrid Tensor-Expert-Data Parallelism Approach to Optimize Mixture-of-Experts Training";
- sequences over ranks: keys and values of a shard go round: Liu et al. 2023, "Ring Attention with Blockwise
  Transformers", or are gathered: Grattafiori et al. 2024, "The Llama 3 Herd of Models", 3.3.2; decodes gather queries
  and merge outputs by log-sum-exps: Yang et al. 2024, "Context Parallelism for Scalable Million-Token Inference";
- norms by token: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models".

Replicated by design, and so counted once a rank that has it: norms, position tables, routers, biases of matrices split
by rows, KV heads where there are more ranks than heads, the compressing projections of latent attention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

BYTES = 2
"""A number, a weight and an entry of the KV cache are 16 bits."""
LOG_SUM_EXP = 4
"""A log-sum-exp is a 32-bit number."""
Message = tuple[str, int, int]
"""A collective: its kind, the ranks that take part, and the bytes of it in ASTRA-sim's meaning."""
Split = Literal["columns", "rows", "whole"]


@dataclass(frozen=True)
class Work:
    """One request of a batch: tokens in the cache, tokens computed, and how many of them are sampled."""

    context: int
    new: int
    samples: int = 1

    @property
    def decodes(self) -> bool:
        """Whether it computes a single token."""
        return self.new == 1

    def attended(self, window: int | None = None, chunk: int | None = None) -> int:
        """Tokens that some of its new tokens attend to."""
        if chunk is not None:
            return self.context % chunk + self.new
        return self.new + (self.context if window is None else min(self.context, window - 1))

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


def decoded(batch: Batch) -> int:
    """Tokens of requests that decode."""
    return sum(work.new for work in batch if work.decodes)


@dataclass(frozen=True)
class Degrees:
    """How a model is spread: `expert` is 1, or all ranks of a stage, over which whole experts lie.

    `ring`: keys and values go round the context-parallel ranks, which gather them otherwise; `scattered`: norms are
    sequence-parallel.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    context: int = 1
    ring: bool = True
    scattered: bool = False

    @property
    def stage(self) -> int:
        """Ranks of a stage."""
        return self.tensor * self.data * self.context

    def share(self, tokens: int) -> int:
        """Tokens that each context-parallel rank has of so many."""
        return ceil(tokens, self.context)


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


@dataclass(frozen=True)
class Exchanged:
    """Bytes of a token on one rank: of a decode's queries, outputs and log-sum-exps, and of what the cache keeps."""

    queries: int
    outputs: int
    sums: int
    kept: int


class Attention(Protocol):
    """Attention of one layer."""

    def matrices(self, hidden: int, batch: Batch, degrees: Degrees) -> Iterable[tuple[Matrix, int]]:
        """Its projections that run, and for how many tokens on each context-parallel rank."""

    def flops(self, work: Work, degrees: Degrees) -> int:
        """FLOPs of one request's attention itself, over the ranks of a member."""

    def exchanged(self, tensor: int) -> Exchanged:
        """What context-parallel ranks exchange, on each of so many tensor-parallel ranks."""

    def passed(self, work: Work) -> int:
        """Tokens of a prompt whose keys and values all its ranks need."""

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

    def matrices(self, hidden: int, batch: Batch, degrees: Degrees) -> Iterable[tuple[Matrix, int]]:
        """A rank holds at least one KV head."""
        kv, tokens = max(self.kv, degrees.tensor), degrees.share(new_tokens(batch))
        yield Matrix(hidden, (self.query + 2 * kv) * self.width, bias=self.bias), tokens
        yield Matrix(self.query * self.width, hidden, "rows", self.out_bias), tokens

    def flops(self, work: Work, degrees: Degrees) -> int:
        """A score and a weighted value for each pair and element of the queries; a cap: division, tanh, product."""
        pairs = divided(work.pairs(self.window, self.chunk), work, degrees)
        return self.query * (4 * self.width + 3 * self.capped) * pairs

    def exchanged(self, tensor: int) -> Exchanged:
        """Keys and values of the heads of a rank."""
        queries = BYTES * ceil(self.query * self.width, tensor)
        kept = 2 * BYTES * max(self.kv, tensor) * self.width // tensor
        return Exchanged(queries, queries, LOG_SUM_EXP * self.query // tensor, kept)

    def passed(self, work: Work) -> int:
        """No more than the window reaches."""
        return work.attended(self.window, self.chunk)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: DeepSeek-AI 2024, "DeepSeek-V2", section 2.1 (formulas 9 to 19) and appendix C.

    Prompts expand the latent vectors of all tokens attended to; decodes (one token) take queries and outputs through
    the halves of the expanding matrix instead, and attend to the latent vectors themselves.
    """

    heads: int
    query_rank: int | None
    rank: int
    nope: int
    rope: int
    value: int

    def matrices(self, hidden: int, batch: Batch, degrees: Degrees) -> Iterable[tuple[Matrix, int]]:
        """Compressing matrices are whole on every rank."""
        tokens, decodes = new_tokens(batch), decoded(batch)
        every, queries = degrees.share(tokens), self.heads * (self.nope + self.rope)
        if self.query_rank is None:
            yield Matrix(hidden, queries), every
        else:
            yield Matrix(hidden, self.query_rank, "whole"), every
            yield Matrix(self.query_rank, queries), every
        yield Matrix(hidden, self.rank + self.rope, "whole"), every
        if tokens > decodes:
            yield Matrix(self.rank, self.heads * (self.nope + self.value)), degrees.share(tokens - decodes)
        if decodes:
            yield Matrix(self.nope, self.heads * self.rank, kept=True), degrees.share(decodes)
            yield Matrix(self.rank, self.heads * self.value, kept=True), degrees.share(decodes)
        yield Matrix(self.heads * self.value, hidden, "rows"), every

    def flops(self, work: Work, degrees: Degrees) -> int:
        """Expanded, all but a rank's own new tokens are projected up once more."""
        pairs = divided(work.pairs(), work, degrees)
        if work.decodes:
            return 2 * self.heads * (2 * self.rank + self.rope) * pairs
        ranks, blocks = degrees.context, degrees.context if degrees.ring else 1
        again = ranks * blocks * ceil(work.attended() - degrees.share(work.new), blocks)
        expanding = 2 * self.rank * self.heads * (self.nope + self.value) * again
        return 2 * self.heads * (self.nope + self.rope + self.value) * pairs + expanding

    def exchanged(self, tensor: int) -> Exchanged:
        """Queries and outputs in the latent space; the vectors themselves are the same on every rank."""
        heads, kept = self.heads // tensor, self.rank + self.rope
        return Exchanged(BYTES * heads * kept, BYTES * heads * self.rank, LOG_SUM_EXP * heads, BYTES * kept)

    def passed(self, work: Work) -> int:
        """All."""
        return work.attended()

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
        tensor, copies = (1, 1) if degrees.expert > 1 else (degrees.tensor, degrees.data * degrees.context)
        return copies * self.count * sum(matrix.bytes(tensor, storage) for matrix in self.expert(hidden, tensor))

    def expert(self, hidden: int, tensor: int) -> Iterable[Matrix]:
        """The matrices of one expert, divided over `tensor` ranks."""
        width = ceil(self.width, self.granule * tensor) * self.granule * tensor
        return Mlp(width if tensor > 1 else self.width, bias=self.bias).matrices(hidden)


@dataclass(frozen=True)
class Block:
    """One kind of layer. `norms`: over the hidden state; `reduces_once`: attention and MLP are added first."""

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
    tokens = [degrees.share(new_tokens(batch)) for batch in members]
    copies, tensor = degrees.context, degrees.tensor
    gemm = grouped = attention = weights = 0
    messages: Counter[Message] = Counter()
    for block in model.blocks():
        whole = block.norms * model.norm * model.hidden + block.attention.whole
        weights += BYTES * degrees.data * copies * (tensor * whole + block.attention.divided)
        for batch, own in zip(members, tokens, strict=True):
            attention += sum(block.attention.flops(work, degrees) for work in batch)
            for matrix, rows in _matrices(model, block, batch, degrees):
                gemm += copies * matrix.flops(rows, tensor)
                weights += copies * matrix.bytes(tensor, model.storage)
            _repeat(messages, copies, _reductions(model, block, own, degrees))
            _repeat(messages, tensor, _around_attention(block, batch, degrees))
        if isinstance(block.mlp, Mixture):
            weights += block.mlp.bytes(model.hidden, degrees, model.experts)
            together = [sum(map(new_tokens, members))] if degrees.expert > 1 else tokens
            alone = 1 if degrees.expert > 1 else copies
            grouped += alone * sum(block.mlp.flops(model.hidden, routed, degrees) for routed in together)
            messages.update(_exchanges(model, block.mlp, members, degrees))
    table, head = _ends(model, tensor)
    for batch, own in zip(members, tokens, strict=True):
        logits = degrees.share(sum(work.samples for work in batch))
        gemm += copies * head.flops(logits, tensor)
        weights += copies * (table + head.bytes(tensor, PLAIN))
        _repeat(messages, copies, _of_ends(model, own, logits, head, degrees))
    return Costs(gemm, grouped, attention, weights, messages, _sends(model, tokens, degrees))


def _repeat(messages: Counter[Message], times: int, found: Iterable[Message]) -> None:
    """Count what as many groups of ranks send side by side."""
    for message in found:
        messages[message] += times


def _matrices(model: Model, block: Block, batch: Batch, degrees: Degrees) -> Iterator[tuple[Matrix, int]]:
    """Yield the matrices that a member's tokens go through, but for routed experts', and for how many of them."""
    yield from block.attention.matrices(model.hidden, batch, degrees)
    mlp = block.mlp
    for matrix in mlp.matrices(model.hidden) if isinstance(mlp, Mlp) else mlp.always(model.hidden):
        yield matrix, degrees.share(new_tokens(batch))


def _ends(model: Model, tensor: int) -> tuple[int, Matrix]:
    """Return the bytes of embedding, positions and final norm on a member's ranks, and its LM head."""
    head = Matrix(model.hidden, ceil(model.vocabulary, tensor) * tensor, bias=model.head_bias)
    whole = tensor * model.hidden * (model.positions + model.norm)
    return BYTES * (head.inputs * head.outputs + whole), head


def _reduced(model: Model, tokens: int, degrees: Degrees) -> Message:
    """Return how partial sums are added: all at once, or each rank its part."""
    kind = "REDUCESCATTER" if degrees.scattered else "ALLREDUCE"
    return kind, degrees.tensor, tokens * model.hidden * BYTES


def _gathered(model: Model, tokens: int, degrees: Degrees) -> Message:
    """Return how ranks get the tokens of the others."""
    return "ALLGATHER", degrees.tensor, ceil(tokens, degrees.tensor) * model.hidden * BYTES


def _of_ends(model: Model, tokens: int, logits: int, head: Matrix, degrees: Degrees) -> Iterator[Message]:
    """Yield the sum of the embedding's parts, what is gathered after the last norm, and the all-gather of logits."""
    if degrees.tensor > 1:
        yield _reduced(model, tokens, degrees)
        yield "ALLGATHER", degrees.tensor, logits * head.outputs // degrees.tensor * BYTES
        if degrees.scattered:
            yield _gathered(model, tokens, degrees)


def _sends(model: Model, tokens: Sequence[int], degrees: Degrees) -> Counter[int]:
    """Return the bytes that ranks send to their like in the next stage, and how often."""
    found: Counter[int] = Counter()
    for own in tokens:
        rows = ceil(own, degrees.tensor) if degrees.scattered else own
        found[rows * model.hidden * BYTES] += degrees.tensor * degrees.context * (degrees.pipeline - 1)
    return +found


def _reductions(model: Model, block: Block, tokens: int, degrees: Degrees) -> Iterator[Message]:
    """Yield a layer's collectives over the tensor-parallel ranks of a member, but for those of routed experts."""
    if degrees.tensor == 1:
        return
    yield _reduced(model, tokens, degrees)
    routed = isinstance(block.mlp, Mixture) and degrees.expert > 1
    shared = isinstance(block.mlp, Mixture) and block.mlp.shared > 0
    if not block.reduces_once and (not routed or shared):
        yield _reduced(model, tokens, degrees)
    if degrees.scattered:
        yield from [_gathered(model, tokens, degrees)] * min(block.norms, 2)  # those behind each half only add


def _around_attention(block: Block, batch: Batch, degrees: Degrees) -> Iterator[Message]:
    """Yield what the context-parallel ranks of one tensor-parallel rank exchange."""
    ranks, bytes_of = degrees.context, block.attention.exchanged(degrees.tensor)
    if ranks == 1:
        return
    decodes = decoded(batch)
    if decodes:
        yield "ALLGATHER", ranks, ceil(decodes, ranks) * bytes_of.queries
        yield "ALLGATHER", ranks, decodes * bytes_of.sums
        yield "REDUCESCATTER", ranks, decodes * bytes_of.outputs
    shards = [ceil(block.attention.passed(work), ranks) for work in batch if not work.decodes]
    if shards:
        moved = sum(shards) * bytes_of.kept
        yield from [("PERMUTE", ranks, moved)] * (ranks - 1) if degrees.ring else [("ALLGATHER", ranks, moved)]


def _exchanges(model: Model, mixture: Mixture, members: Sequence[Batch], degrees: Degrees) -> Iterator[Message]:
    """Yield how tokens go to experts and back: the largest rank's sizes, because all ranks carry equally much."""
    if degrees.expert == 1:
        return
    row, tokens = model.hidden * BYTES, [degrees.share(new_tokens(batch)) for batch in members]
    sent = ceil(max(tokens) * mixture.chosen, degrees.tensor)
    worked = ceil(sum(map(new_tokens, members)) * mixture.chosen, degrees.expert)
    yield from [("ALLTOALL", degrees.stage, max(sent, worked) * row)] * 2
    if degrees.tensor > 1 and not degrees.scattered:
        for own in tokens:
            yield from [_gathered(model, own, degrees)] * degrees.context


def divided(pairs: int, work: Work, degrees: Degrees) -> int:
    """Pairs over the context-parallel ranks: each rank, and each block of a ring, has its even share, rounded up."""
    parts = degrees.context * (degrees.context if degrees.ring and not work.decodes else 1)
    return parts * ceil(pairs, parts)


def ceil(value: int, divisor: int) -> int:
    """Return value / divisor, rounded up."""
    return -(-value // divisor)
