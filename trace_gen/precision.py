"""How numbers are stored: bits of weights, activations, and of keys and values in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import UserError

WIDTHS = (4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of a stored number: parameters, activations, and keys and values in the cache."""

    weight_bits: int = 16
    activation_bits: int = 16
    kv_bits: int = 16

    def __post_init__(self) -> None:
        for field in ("weight_bits", "activation_bits", "kv_bits"):
            bits = getattr(self, field)
            if bits not in WIDTHS:
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


def ceil_div(value: int, divisor: int) -> int:
    """Return value / divisor, rounded up."""
    return -(-value // divisor)
