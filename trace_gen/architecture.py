"""What a decoder-only language model is made of: sizes, counts and kinds, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class NormKind(Enum):
    """Normalisation: RMSNorm has a weight vector, LayerNorm a weight and a bias vector."""

    RMS = "rmsnorm"
    LAYER = "layernorm"


class PositionKind(Enum):
    """How positions enter: rotated into queries and keys, or added from a learned table."""

    ROTARY = "rotary"
    LEARNED = "learned"


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `count` gated MLPs of width `intermediate_size`; a token goes through `per_token` of them.

    `shared_intermediate_size`: the width of the shared experts together, which every token goes through (0: none);
    `shared_gate`: the router has one output more, which weighs theirs.
    """

    count: int
    per_token: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    shared_gate: bool = False

    @property
    def router_outputs(self) -> int:
        """Scores that the router gives a token."""
        return self.count + self.shared_gate

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of one block's router and experts."""
        width = self.count * self.intermediate_size + self.shared_intermediate_size
        return hidden_size * (self.router_outputs + 3 * width)


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """The shape of a decoder. Sizes are elements, not bytes; `num_layers` blocks of attention and MLP.

    - `head_dim` x `num_heads` need not equal `hidden_size`; `num_kv_heads` < `num_heads` is grouped-query attention.
    - `gated_mlp`: gate, up and down projections (SwiGLU); otherwise one up and one down projection.
    - `qkv_bias`, `output_bias`, `mlp_bias`: bias vectors of the query/key/value, the attention output and both MLP
      projections; `qk_norm`: an RMSNorm of `head_dim` elements on queries and on keys.
    - `position_rows`: rows of the learned position table (0 with rotary positions).
    - `sliding_window`: tokens a query attends to at most, itself included; None for all.
    - `experts`: the mixture of experts that each block has in place of its MLP (whose width then means nothing).
    """

    name: str
    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    gated_mlp: bool
    norm: NormKind
    positions: PositionKind
    tie_word_embeddings: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    position_rows: int = 0
    sliding_window: int | None = None
    experts: Experts | None = None

    @property
    def query_size(self) -> int:
        """Elements of all query heads of a token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of all key heads of a token (the value heads have as many)."""
        return self.num_kv_heads * self.head_dim

    @property
    def norm_parameters(self) -> int:
        """Parameters of one normalisation over the hidden size."""
        return self.hidden_size * (2 if self.norm is NormKind.LAYER else 1)

    @property
    def block_parameters(self) -> int:
        """Parameters of one block: two norms, attention, and the MLP or experts, with their biases."""
        hidden, inner = self.hidden_size, self.intermediate_size
        qkv = self.query_size + 2 * self.kv_size
        attention = hidden * qkv + self.query_size * hidden
        attention += qkv * self.qkv_bias + hidden * self.output_bias + 2 * self.head_dim * self.qk_norm
        up_projections = 2 if self.gated_mlp else 1
        mlp = (up_projections + 1) * hidden * inner + self.mlp_bias * (up_projections * inner + hidden)
        if self.experts is not None:
            mlp = self.experts.parameters(hidden)
        return attention + mlp + 2 * self.norm_parameters

    @property
    def parameters(self) -> int:
        """Parameters of the whole model; tied embeddings count once."""
        vocabulary = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        positions = self.position_rows * self.hidden_size
        return vocabulary + positions + self.num_layers * self.block_parameters + self.norm_parameters
