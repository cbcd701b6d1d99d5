"""What one rank of a tensor-parallel group holds of each dimension, and how numbers are stored."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of a stored number: parameters, activations, and keys and values in the cache."""

    weight_bits: int = 16
    activation_bits: int = 16
    kv_bits: int = 16

    def __post_init__(self) -> None:
        for field in ("weight_bits", "activation_bits", "kv_bits"):
            bits = getattr(self, field)
            if bits not in (4, 8, 16, 32):
                raise UserError(f"{field} is {bits}", fix="use 4, 8, 16 or 32 bits a number")

    def weight_bytes(self, parameters: int) -> int:
        """Return the bytes of `parameters` stored weights."""
        return ceil_div(parameters * self.weight_bits, 8)

    def activation_bytes(self, elements: int) -> int:
        """Return the bytes of `elements` activations."""
        return ceil_div(elements * self.activation_bits, 8)

    def kv_bytes(self, elements: int) -> int:
        """Return the bytes of `elements` numbers in the KV cache."""
        return ceil_div(elements * self.kv_bits, 8)


@dataclass(frozen=True, slots=True)
class Shard:
    """Elements a token that one rank holds: of queries, of keys (values have as many), of the MLP, of the logits.

    Dimensions that `tensor` does not divide are rounded up: the numbers are those of the fullest rank. Of a mixture of
    experts the rank holds `experts` experts of width `expert_intermediate`, and `shared_intermediate` of the shared
    ones (0: there are none); with `expert` > 1 whole experts are spread over that many ranks.
    """

    tensor: int
    query: int
    kv: int
    intermediate: int
    vocab: int
    expert: int = 1
    experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0

    @property
    def qkv(self) -> int:
        """Elements of queries, keys and values together."""
        return self.query + 2 * self.kv


def shard(architecture: ModelArchitecture, tensor: int, expert: int = 1) -> Shard:
    """Return one rank's share with `tensor` ranks; whole experts go to `expert` of them (1: every one has its part).

    Up to the number of KV heads these are divided; from there to the number of query heads each rank holds one
    KV head, copied where ranks share it; beyond the number of query heads every head is split evenly. Raises
    `UserError` where `expert` ranks cannot share the experts evenly.
    """
    check_experts(architecture, expert)
    mixture = architecture.experts
    if tensor <= architecture.num_kv_heads:
        kv = ceil_div(architecture.kv_size, tensor)
    elif tensor <= architecture.num_heads:
        kv = architecture.head_dim
    else:
        kv = ceil_div(architecture.query_size, tensor)
    return Shard(
        tensor=tensor,
        query=ceil_div(architecture.query_size, tensor),
        kv=kv,
        intermediate=ceil_div(architecture.intermediate_size, tensor),
        vocab=ceil_div(architecture.vocab_size, tensor),
        expert=expert,
        experts=mixture.count // expert if mixture else 0,
        expert_intermediate=ceil_div(mixture.intermediate_size, 1 if expert > 1 else tensor) if mixture else 0,
        shared_intermediate=ceil_div(mixture.shared_intermediate_size, tensor) if mixture else 0,
    )


def check_experts(architecture: ModelArchitecture, expert: int) -> None:
    """Raise a `UserError` unless `expert` ranks can hold equally many whole experts (1 is always right)."""
    if expert == 1:
        return
    if architecture.experts is None:
        raise UserError(f"{architecture.name} has no experts to spread", field="--ep_size", fix="leave it out")
    count = architecture.experts.count
    if count % expert:
        near = ", ".join(str(ranks) for ranks in range(1, count + 1) if count % ranks == 0)
        raise UserError(
            f"{architecture.name} has {count} experts, which {expert} ranks do not divide",
            field="--ep_size",
            fix=f"use one of {near} tensor-parallel NPUs, or --ep_size 1",
        )


def shard_warnings(architecture: ModelArchitecture, tensor: int) -> tuple[str, ...]:
    """Return what a user should know about dividing `architecture` by `tensor`, one sentence each."""
    heads, kv_heads, name = architecture.num_heads, architecture.num_kv_heads, architecture.name
    if heads % tensor:
        return (f"{name} has {heads} attention heads, which {tensor} ranks do not divide: heads are split evenly",)
    if tensor > kv_heads and tensor % kv_heads:
        return (f"{name} has {kv_heads} KV heads, which do not divide {tensor} ranks: each rank holds a whole one",)
    if tensor < kv_heads and kv_heads % tensor:
        return (f"{name} has {kv_heads} KV heads, which {tensor} ranks do not divide: they are split evenly",)
    return ()


def ceil_div(value: int, divisor: int) -> int:
    """Return value / divisor, rounded up."""
    return -(-value // divisor)
