"""What a decoder-only language model is made of: an embedding, runs of like layers, and a head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import groupby

from trace_gen.attention.interface import Attention
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.interface import Mlp
from trace_gen.quantization import Quantization


class NormKind(Enum):
    """Normalisation: RMSNorm has a weight vector, LayerNorm a weight and a bias vector."""

    RMS = "rmsnorm"
    LAYER = "layernorm"


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of layer: a norm, attention, a norm, a feed-forward network. Equal layers have the same operators."""

    attention: Attention
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Like layers in a row."""

    layer: Layer
    repeats: int


def layer_runs(layers: Iterable[Layer]) -> tuple[LayerRun, ...]:
    """Return `layers`, one after another, as runs of like ones."""
    return tuple(LayerRun(layer, sum(1 for _ in run)) for layer, run in groupby(layers))


@dataclass(frozen=True)
class ModelArchitecture:
    """The shape of a decoder. Sizes are elements, not bytes.

    - `runs`: its layers, from the first to the last, as runs of like ones;
    - `norm`: the kind of every normalisation over the hidden state;
    - `position_rows`: rows of the learned position table (0 where positions are rotary or none);
    - `tie_word_embeddings`: the embedding is the LM head, too;
    - `joins_hidden_state`: its first layer takes a token's embedding and a hidden state of another model, projected to
      one (see `trace_gen.drafters`);
    - `quantization`: how the checkpoint stores the matrices of its layers (None: as all other numbers).
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
    joins_hidden_state: bool = False
    quantization: Quantization | None = None

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
    def norm_parameters(self) -> int:
        """Parameters of one normalisation over the hidden size."""
        return self.hidden_size * (2 if self.norm is NormKind.LAYER else 1)

    @property
    def mixtures(self) -> tuple[Experts, ...]:
        """The different mixtures of experts among its layers; none for a dense model."""
        return tuple(dict.fromkeys(kind.mlp for kind in self.layer_kinds if isinstance(kind.mlp, Experts)))
