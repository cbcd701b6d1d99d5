"""What a decoder-only language model is made of: an embedding, runs of like layers, and a head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from functools import cached_property
from itertools import groupby

from foundation.records import dataclass
from trace_gen.attention.absorption import Absorption
from trace_gen.attention.interface import Attention
from trace_gen.attention.latent import LatentAttention
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.interface import Mlp
from trace_gen.quantization import Quantization, Schemes


class NormKind(Enum):
    """Normalisation: RMSNorm has a weight vector, LayerNorm a weight and a bias vector."""

    RMS = "rmsnorm"
    LAYER = "layernorm"


class BlockForm(Enum):
    """Where the norms of a block stand, and whether attention and feed-forward network follow each other.

    x is the residual stream, A attention, M the feed-forward network, each N a norm of its own.
    """

    PRE_NORM = "pre-norm"
    """x + A(N x), then x + M(N x): GPT-2, Llama and most others."""
    POST_NORM = "post-norm"
    """N(x + A x), then N(x + M x): OPT-350M."""
    SANDWICH = "sandwich"
    """x + N A(N x), then x + N M(N x): Gemma 2 and 3, GLM-4-0414."""
    PARALLEL = "parallel"
    """x + A(N x) + M(N x), one norm for both: Falcon 7B, Phi 1.5 and 2."""
    PARALLEL_NORMS = "parallel, two norms"
    """x + A(N x) + M(N x), each with its norm: GPT-NeoX, Falcon 40B."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of layer: attention and a feed-forward network, with norms around them. Equal ones have equal operators.

    `reduces_once`: in a parallel block, tensor-parallel ranks add what both put out before one all-reduce of the sum;
    `schemes`: the matrices that are quantised, and how.
    """

    attention: Attention
    mlp: Mlp
    form: BlockForm = BlockForm.PRE_NORM
    reduces_once: bool = False
    schemes: Schemes = ()


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Like layers in a row."""

    layer: Layer
    repeats: int


def layer_runs(layers: Iterable[Layer]) -> tuple[LayerRun, ...]:
    """Return `layers`, one after another, as runs of like ones."""
    return tuple(LayerRun(layer, sum(1 for _ in run)) for layer, run in groupby(layers))


def quantized(model: ModelArchitecture, quantization: Quantization | None) -> ModelArchitecture:
    """Return `model` with its matrices stored as `quantization` says."""
    if quantization is None:
        return model
    stored = (replace(layer, schemes=quantization.schemes(index)) for index, layer in enumerate(model.layers))
    return replace(model, runs=layer_runs(stored), quantization=quantization)


def unquantized(model: ModelArchitecture) -> ModelArchitecture:
    """Return `model` with its matrices stored as all other numbers."""
    plain = (LayerRun(replace(run.layer, schemes=()), run.repeats) for run in model.runs)
    return replace(model, runs=tuple(plain), quantization=None)


def absorbing(model: ModelArchitecture, absorption: Absorption) -> ModelArchitecture:
    """Return `model` whose latent attention absorbs its up-projections for the tokens that `absorption` says."""
    runs = []
    for run in model.runs:
        attention = run.layer.attention
        if isinstance(attention, LatentAttention):
            run = replace(run, layer=replace(run.layer, attention=replace(attention, absorption=absorption)))
        runs.append(run)
    return replace(model, runs=tuple(runs))


@dataclass(frozen=True)
class ModelArchitecture:
    """The shape of a decoder. Sizes are elements, not bytes.

    - `runs`: its layers, from the first to the last, as runs of like ones;
    - `norm`: the kind of every normalisation over the hidden state;
    - `position_rows`: rows of the learned position table (0 where positions are rotary or none);
    - `tie_word_embeddings`: the embedding is the LM head, too;
    - `embedding_size`: the width of embedding and LM head where projections lie between it and the hidden size (None:
      the hidden size, without them); `scales_embedding`: each element of the embedding is multiplied by a constant;
    - `joins_hidden_state`: its first layer takes a token's embedding and a hidden state of another model, projected to
      one (see `trace_gen.drafters`);
    - `final_norm`: a norm follows the last layer;
    - `head_bias`: the LM head has a bias; `caps_logits`: logits are capped (a tanh) before one is sampled;
    - `quantization`: how the checkpoint stores its matrices (None: as all other numbers), in force by `quantized`;
    - `notes`: what a user should know of what was read, one sentence each;
    - `bits`: the width of its numbers where what was read says so (None: a run says it).
    """

    name: str
    model_type: str
    hidden_size: int
    runs: tuple[LayerRun, ...]
    vocab_size: int
    max_position: int
    norm: NormKind
    tie_word_embeddings: bool
    position_rows: int = 0
    embedding_size: int | None = None
    scales_embedding: bool = False
    joins_hidden_state: bool = False
    final_norm: bool = True
    head_bias: bool = False
    caps_logits: bool = False
    quantization: Quantization | None = None
    notes: tuple[str, ...] = ()
    bits: int | None = None

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, in order."""
        return tuple(run.layer for run in self.runs for _ in range(run.repeats))

    @cached_property
    def layer_kinds(self) -> tuple[Layer, ...]:
        """The different layers, in the order in which they first occur."""
        return tuple(dict.fromkeys(run.layer for run in self.runs))

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return sum(run.repeats for run in self.runs)

    @property
    def embedding_width(self) -> int:
        """Elements of a row of the embedding and of the LM head."""
        return self.embedding_size or self.hidden_size

    @property
    def end_schemes(self) -> Schemes:
        """How the matrices before and after the layers are stored, where they are quantised."""
        return () if self.quantization is None else self.quantization.schemes()

    @property
    def norm_parameters(self) -> int:
        """Parameters of one normalisation over the hidden size."""
        return self.hidden_size * (2 if self.norm is NormKind.LAYER else 1)

    @property
    def absorption(self) -> Absorption | None:
        """Which tokens its latent attention absorbs its up-projections for; None without latent attention."""
        latent = [kind.attention for kind in self.layer_kinds if isinstance(kind.attention, LatentAttention)]
        return latent[0].absorption if latent else None

    @property
    def mixtures(self) -> tuple[Experts, ...]:
        """The different mixtures of experts among its layers; none for a dense model."""
        return tuple(dict.fromkeys(kind.mlp for kind in self.layer_kinds if isinstance(kind.mlp, Experts)))
