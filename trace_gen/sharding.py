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

    Dimensions that `tensor` does not divide are rounded up: the numbers are those of the fullest rank.
    """

    tensor: int
    query: int
    kv: int
    intermediate: int
    vocab: int

    @property
    def qkv(self) -> int:
        """Elements of queries, keys and values together."""
        return self.query + 2 * self.kv


def shard(architecture: ModelArchitecture, tensor: int) -> Shard:
    """Return one rank's share with `tensor` ranks.

    Up to the number of KV heads these are divided; from there to the number of query heads each rank holds one
    KV head, copied where ranks share it; beyond the number of query heads every head is split evenly.
    """
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
