"""How many bytes of weights and of KV cache each rank holds.

Weights: blocks belong to their stage; the embedding (vocabulary-parallel) and a learned position table (whole on
each rank) to the first, the final norm and the LM head (vocabulary-parallel) to the last. Tied embeddings are
stored once where first and last stage are the same, and twice where they are not. Norms and the biases of
row-parallel projections are whole on every rank.

KV cache: 2 x KV elements a rank x layers of the stage. With grouped-query attention the KV heads count, not the
query heads.

Experts: whole ones on ranks, or a part of each (`Parallelism.expert`); the router is whole on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from trace_gen.architecture import ModelArchitecture
from trace_gen.parallelism import Parallelism
from trace_gen.sharding import Precision, ceil_div, shard


@dataclass(frozen=True)
class MemoryLayout:
    """Bytes a rank, for `architecture` on `parallelism`.

    `requests_on_ranks`: attention is placed by request, so a rank holds all heads of its own requests; the bytes a
    token are then the mean over the ranks of a stage, and no KV head is held twice.
    """

    architecture: ModelArchitecture
    parallelism: Parallelism
    precision: Precision = field(default_factory=Precision)
    requests_on_ranks: bool = False

    def weight_bytes(self, stage: int) -> int:
        """Return the bytes of weights on each rank of `stage` (its fullest rank)."""
        return self.precision.weight_bytes(self._stage_parameters(stage))

    def kv_bytes_per_token(self, stage: int) -> int:
        """Return the bytes of KV cache a token on each rank of `stage`."""
        return self._layers[stage] * 2 * self.precision.kv_bytes(self._kv_elements)

    @cached_property
    def kv_bytes_per_token_all_ranks(self) -> int:
        """Bytes of KV cache a token, summed over all ranks (copies of KV heads included)."""
        stages = range(self.parallelism.pipeline)
        return self.parallelism.tensor * sum(self.kv_bytes_per_token(stage) for stage in stages)

    @cached_property
    def max_rank_weight_bytes(self) -> int:
        """Bytes of weights on the fullest rank."""
        return max(self.weight_bytes(stage) for stage in range(self.parallelism.pipeline))

    def kv_tokens(self, stage: int, memory_bytes: int) -> int:
        """Return how many tokens of KV cache fit beside the weights in `memory_bytes` a rank; negative: none at all."""
        return (memory_bytes - self.weight_bytes(stage)) // self.kv_bytes_per_token(stage)

    def tightest_stage(self, memory_bytes: int) -> int:
        """Return the stage that has room for the fewest tokens (the first of equals): it limits the instance."""
        return min(range(self.parallelism.pipeline), key=lambda stage: self.kv_tokens(stage, memory_bytes))

    def transfer_share(self, total_bytes: int, stage: int) -> int:
        """Return what each rank of `stage` moves of `total_bytes` of KV cache summed over all ranks."""
        return ceil_div(total_bytes * self.kv_bytes_per_token(stage), self.kv_bytes_per_token_all_ranks)

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        return tuple(len(layers) for layers in self.parallelism.stage_layers(self.architecture.num_layers))

    @cached_property
    def _kv_elements(self) -> int:
        tensor = self.parallelism.tensor
        if self.requests_on_ranks:
            return ceil_div(self.architecture.kv_size, tensor)
        return shard(self.architecture, tensor).kv

    def _stage_parameters(self, stage: int) -> int:
        model = self.architecture
        vocabulary = shard(model, self.parallelism.tensor).vocab * model.hidden_size
        last = self.parallelism.pipeline - 1
        parameters = self._layers[stage] * block_parameters(model, self.parallelism)
        if stage == 0:
            parameters += vocabulary + model.position_rows * model.hidden_size
        if stage == last:
            parameters += model.norm_parameters
            parameters += 0 if model.tie_word_embeddings and stage == 0 else vocabulary
        return parameters


def block_parameters(model: ModelArchitecture, parallelism: Parallelism) -> int:
    """Return the parameters of one block on one rank."""
    part, hidden = shard(model, parallelism.tensor, parallelism.expert), model.hidden_size
    attention = hidden * part.qkv + part.qkv * model.qkv_bias + part.query * hidden + hidden * model.output_bias
    attention += 2 * model.head_dim * model.qk_norm
    inner = part.intermediate * (2 if model.gated_mlp else 1)
    mlp = hidden * inner + inner * model.mlp_bias + part.intermediate * hidden + hidden * model.mlp_bias
    if model.experts is not None:
        width = part.experts * part.expert_intermediate + part.shared_intermediate
        mlp = hidden * (model.experts.router_outputs + 3 * width)
    return attention + mlp + 2 * model.norm_parameters
