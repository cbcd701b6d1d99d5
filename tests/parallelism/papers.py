"""What a batch costs by the papers: matrix and attention FLOPs, weights and messages of a deployment as a whole.

Nothing of Orrery is imported. Dimensions are typed in from the papers and model cards (`published`); formulas:

- a layer: 2 FLOPs a weight and token, 4 an element of the queries and pair of tokens (2 a score, 2 a weighted sum),
  Vaswani et al. 2017, "Attention Is All You Need"; grouped heads: Ainslie et al. 2023, "GQA"; windows: Beltagy et al.
  2020, "Longformer"; blocks with attention and MLP side by side: Wang and Komatsuzaki 2021, "GPT-J-6B";
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

    def pairs(self, window: int | None) -> int:
        """Pairs of a token and one that it attends to, itself included (causal)."""
        seen = (self.context + query for query in range(1, self.new + 1))
        return sum(tokens if window is None else min(tokens, window) for tokens in seen)


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


@dataclass(frozen=True)
class Matrix:
    """A projection, as all ranks of a member hold it together."""

    inputs: int
    outputs: int
    split: Split = "columns"
    bias: bool = False

    def flops(self, tokens: int, tensor: int) -> int:
        """FLOPs over the ranks: what is whole is computed by each, and so is a bias after a split by rows."""
        times, added = self._times(tensor)
        return tokens * (2 * self.inputs * self.outputs * times + self.outputs * self.bias * added)

    def weights(self, tensor: int) -> int:
        """Weights over the ranks."""
        times, added = self._times(tensor)
        return self.inputs * self.outputs * times + self.outputs * self.bias * added

    def _times(self, tensor: int) -> tuple[int, int]:
        return (tensor if self.split == "whole" else 1), (1 if self.split == "columns" else tensor)


class Attention(Protocol):
    """Attention of one layer."""

    def matrices(self, hidden: int, tensor: int) -> Iterable[Matrix]:
        """Its projections."""

    def flops(self, work: Work) -> int:
        """FLOPs of one request, over the ranks of a member."""

    @property
    def norms(self) -> int:
        """Weights of norms inside, which every rank holds."""


@dataclass(frozen=True)
class Heads:
    """Query heads that share KV heads."""

    query: int
    kv: int
    width: int
    window: int | None = None
    bias: bool = False
    out_bias: bool = False
    norms: int = 0

    def matrices(self, hidden: int, tensor: int) -> Iterable[Matrix]:
        """A rank holds at least one KV head."""
        kv = max(self.kv, tensor)
        yield Matrix(hidden, (self.query + 2 * kv) * self.width, bias=self.bias)
        yield Matrix(self.query * self.width, hidden, "rows", self.out_bias)

    def flops(self, work: Work) -> int:
        """A score and a weighted value for every pair and element of the queries."""
        return 4 * self.query * self.width * work.pairs(self.window)


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
    """`count` gated experts of `width`, `chosen` a token; shared ones of `shared` together; `router` scores a token."""

    count: int
    chosen: int
    width: int
    router: int
    shared: int = 0

    def always(self, hidden: int) -> Iterable[Matrix]:
        """What every token goes through."""
        yield Matrix(hidden, self.router, "whole")
        if self.shared:
            yield from Mlp(self.shared).matrices(hidden)

    def flops(self, hidden: int, tokens: int, ranks: int) -> int:
        """Routed experts', over `ranks`: each works on its even share of the tokens' copies, rounded up."""
        copies = ranks * ceil(tokens * self.chosen, ranks)
        return 2 * copies * 3 * hidden * self.width

    def weights(self, hidden: int) -> int:
        """Of all routed experts."""
        return self.count * 3 * hidden * self.width


@dataclass(frozen=True)
class Block:
    """One kind of layer. `norms`: over the hidden state; `parallel`: attention and MLP are added before they are reduced."""

    attention: Attention
    mlp: Mlp | Mixture
    norms: int = 2
    parallel: bool = False


@dataclass(frozen=True)
class Model:
    """`layers`: (how many, kind) in order; `norm`: weight vectors of a norm; `positions`: rows of a learned table."""

    hidden: int
    vocabulary: int
    layers: tuple[tuple[int, Block], ...]
    norm: int = 1
    positions: int = 0
    head_bias: bool = False

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


def costs(model: Model, members: Sequence[Sequence[Work]], degrees: Degrees) -> Costs:
    """Return what the papers say of `members`, the batch of each data-parallel member."""
    tokens = [sum(work.new for work in batch) for batch in members]
    gemm = grouped = attention = weights = 0
    messages: Counter[Message] = Counter()
    for block in model.blocks():
        weights += _block_weights(model, block, degrees)
        grouped += _grouped(model, block, tokens, degrees)
        for batch, own in zip(members, tokens, strict=True):
            attention += sum(block.attention.flops(work) for work in batch)
            gemm += sum(matrix.flops(own, degrees.tensor) for matrix in _matrices(model, block, degrees.tensor))
            messages.update(_reductions(model, block, own, degrees))
        messages.update(_exchanges(model, block, tokens, degrees))
    head = Matrix(model.hidden, ceil(model.vocabulary, degrees.tensor) * degrees.tensor, bias=model.head_bias)
    for batch, own in zip(members, tokens, strict=True):
        logits = sum(work.samples for work in batch)
        gemm += head.flops(logits, degrees.tensor)
        if degrees.tensor > 1:
            part = head.outputs // degrees.tensor
            messages["ALLREDUCE", degrees.tensor, own * model.hidden * BYTES] += 1
            messages["ALLGATHER", degrees.tensor, logits * part * BYTES] += 1
    ends = 2 * head.inputs * head.outputs + head.outputs * head.bias
    ends += degrees.tensor * model.hidden * (model.positions + model.norm)
    sends = Counter(own * model.hidden * BYTES for own in tokens for _ in range(degrees.tensor))
    hops = Counter({size: count * (degrees.pipeline - 1) for size, count in sends.items() if degrees.pipeline > 1})
    return Costs(gemm, grouped, attention, BYTES * (weights + degrees.data * ends), messages, hops)


def _matrices(model: Model, block: Block, tensor: int) -> Iterator[Matrix]:
    yield from block.attention.matrices(model.hidden, tensor)
    mlp = block.mlp
    yield from mlp.matrices(model.hidden) if isinstance(mlp, Mlp) else mlp.always(model.hidden)


def _block_weights(model: Model, block: Block, degrees: Degrees) -> int:
    """Members hold all but the experts each; experts lie once on the ranks of a stage, or are divided in each member."""
    own = sum(matrix.weights(degrees.tensor) for matrix in _matrices(model, block, degrees.tensor))
    own += degrees.tensor * (block.norms * model.norm * model.hidden + block.attention.norms)
    routed = block.mlp.weights(model.hidden) if isinstance(block.mlp, Mixture) else 0
    return degrees.data * own + routed * (1 if degrees.expert > 1 else degrees.data)


def _grouped(model: Model, block: Block, tokens: Sequence[int], degrees: Degrees) -> int:
    if isinstance(block.mlp, Mlp):
        return 0
    if degrees.expert > 1:
        return block.mlp.flops(model.hidden, sum(tokens), degrees.expert)
    return sum(block.mlp.flops(model.hidden, own, 1) for own in tokens)


def _reductions(model: Model, block: Block, tokens: int, degrees: Degrees) -> Iterator[Message]:
    """All-reduces over the tensor-parallel ranks of a member."""
    if degrees.tensor == 1:
        return
    message = ("ALLREDUCE", degrees.tensor, tokens * model.hidden * BYTES)
    yield message
    routed = isinstance(block.mlp, Mixture) and degrees.expert > 1
    shared = isinstance(block.mlp, Mixture) and block.mlp.shared > 0
    if not block.parallel and (not routed or shared):
        yield message


def _exchanges(model: Model, block: Block, tokens: Sequence[int], degrees: Degrees) -> Iterator[Message]:
    """Tokens go to their experts and back: the largest member's sizes, because all ranks carry equally much."""
    if degrees.expert == 1 or isinstance(block.mlp, Mlp):
        return
    row, most = model.hidden * BYTES, max(tokens)
    yield from [("ALLTOALL", degrees.stage, ceil(most * block.mlp.chosen, degrees.tensor) * row)] * 2
    if degrees.tensor > 1:
        yield from (("ALLGATHER", degrees.tensor, ceil(own, degrees.tensor) * row) for own in tokens)


def ceil(value: int, divisor: int) -> int:
    """Return value / divisor, rounded up."""
    return -(-value // divisor)
