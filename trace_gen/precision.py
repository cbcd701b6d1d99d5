"""How numbers are stored and multiplied: bits of weights, activations, and of keys and values in the cache."""

from __future__ import annotations

from enum import IntEnum

from foundation.errors import UserError
from foundation.records import dataclass

WIDTHS = (4, 8, 16, 32)


class Arithmetic(IntEnum):
    """What numbers are multiplied in."""

    SINGLE = 0
    """32-bit floating point."""
    HALF = 1
    """16-bit floating point."""
    EIGHT = 2
    """8 bits, floating point or integer, whichever a device has."""
    FP8 = 3
    INT8 = 4

    @staticmethod
    def of(bits: int) -> Arithmetic:
        """Return the arithmetic on numbers of `bits` bits; narrower than 8 they are widened to these."""
        return {32: Arithmetic.SINGLE, 16: Arithmetic.HALF}.get(bits, Arithmetic.EIGHT)


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

    @property
    def arithmetic(self) -> Arithmetic:
        """What weights and activations are multiplied in: that of the wider."""
        return Arithmetic.of(max(self.weight_bits, self.activation_bits))

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
