"""How many bytes of weights and of KV cache each rank holds, summed from the operators.

Weights: layers belong to their stage; the embedding (vocabulary-parallel) and a learned position table (whole on
each rank) to the first, the final norm and the LM head (vocabulary-parallel) to the last. Tied embeddings are
stored once where first and last stage are the same, and twice where they are not. Norms and the biases of
row-parallel projections are whole on every rank.

KV cache: what each layer's attention keeps of a token, in *groups of layers* that keep the same: of all tokens, of a
window, or compressed. Every group has blocks of its own. Context-parallel ranks keep different tokens of a sequence.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property

from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.interface import KVKind, KVLayer
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.operators import Operator
from trace_gen.precision import Precision, ceil_div


def parameter_count(model: ModelArchitecture) -> int:
    """Return the parameters of a model, summed over its operators; tied embeddings count once."""
    operators = model_operators(model)
    blocks = dict(zip(model.layer_kinds, operators.blocks, strict=True))
    tied = model.vocab_size * model.embedding_width if model.tie_word_embeddings else 0
    layers = sum(run.repeats * sum(row.parameters for row in blocks[run.layer]) for run in model.runs)
    return layers + sum(row.parameters for row in (*operators.head, *operators.tail)) - tied


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers that keep the same of a sequence.

    `window`: the last tokens that are kept (None: all); `layers`, `bytes_per_token`: on each stage, how many of its
    layers are in the group, and what these keep of a token on a rank that has it, in bytes (0 where there are none).
    """

    kind: KVKind
    window: int | None
    layers: tuple[int, ...]
    bytes_per_token: tuple[int, ...]


@dataclass(frozen=True)
class ModelMemory:
    """Bytes a rank, for `architecture` on `mesh`, of which one data-parallel member is meant.

    `requests_on_ranks`: attention is placed by request, so a rank holds all heads of its own requests; the bytes a
    token are then the mean over the ranks of a stage, and no KV head is held twice.
    """

    architecture: ModelArchitecture
    mesh: Mesh
    precision: Precision = field(default_factory=Precision)
    requests_on_ranks: bool = False

    def weight_bytes(self, stage: int) -> int:
        """Return the bytes of weights on each rank of `stage` (its fullest rank)."""
        return self._stage_weights[stage]

    def kv_bytes_per_token(self, stage: int) -> int:
        """Return the bytes of KV cache a token on each rank of `stage` that keeps it, over all groups.

        Every token is kept by one of the context-parallel ranks, with as many copies as these have tensor-parallel
        ranks (parts of it, as heads are divided).
        """
        return sum(group.bytes_per_token[stage] for group in self.kv_groups)

    @cached_property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        """The groups of layers that keep the same, in the order in which they first occur."""
        kept = [self._kept(index) for index in range(self.architecture.num_layers)]
        groups = []
        for layer in dict.fromkeys(kept):
            counts = tuple(sum(kept[index] == layer for index in stage) for stage in self._stages)
            sizes = tuple(count * layer.bytes_per_token for count in counts)
            groups.append(KVGroup(layer.kind, layer.window, counts, sizes))
        return tuple(groups)

    @cached_property
    def kv_bytes_per_token_all_ranks(self) -> int:
        """Bytes of KV cache a token, summed over all ranks (copies of KV heads included)."""
        stages = range(self.mesh.pipeline)
        return self.mesh.tensor * sum(self.kv_bytes_per_token(stage) for stage in stages)

    @cached_property
    def max_rank_weight_bytes(self) -> int:
        """Bytes of weights on the fullest rank."""
        return max(self._stage_weights)

    def transfer_share(self, total_bytes: int, stage: int) -> int:
        """Return what each rank of `stage` moves of `total_bytes` of KV cache summed over all ranks."""
        share = self.kv_bytes_per_token_all_ranks * self.mesh.context
        return ceil_div(total_bytes * self.kv_bytes_per_token(stage), share)

    @cached_property
    def _stages(self) -> tuple[range, ...]:
        return self.mesh.stage_layers(self.architecture.num_layers)

    def _kept(self, index: int) -> KVLayer:
        attention, tensor = self.architecture.layers[index].attention, self.mesh.tensor
        return (attention.kv_share if self.requests_on_ranks else attention.kv)(tensor, self.precision)

    def _head_weights(self, tail: tuple[Operator, ...]) -> int:
        """Return the bytes of the LM head; where it is the embedding of the same stage, of its bias alone."""
        model = self.architecture
        if not model.tie_word_embeddings or self.mesh.pipeline > 1:
            return sum(row.weight_bytes for row in tail if row.name == "lm_head")
        return self.precision.weight_bytes(ceil_div(model.vocab_size, self.mesh.tensor) * model.head_bias)

    @cached_property
    def _stage_weights(self) -> tuple[int, ...]:
        model = self.architecture
        operators = model_operators(model, self.mesh, self.precision)
        blocks = (sum(row.weight_bytes for row in block) for block in operators.blocks)
        of_kind = dict(zip(model.layer_kinds, blocks, strict=True))
        held = [sum(of_kind[model.layers[index]] for index in stage) for stage in self._stages]
        held[0] += sum(row.weight_bytes for row in operators.head)
        held[-1] += sum(row.weight_bytes for row in operators.tail if row.name != "lm_head")
        held[-1] += self._head_weights(operators.tail)
        return tuple(held)
