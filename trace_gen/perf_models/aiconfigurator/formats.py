"""What the tables call number formats, from how a model's matrices are stored and multiplied."""

from __future__ import annotations

from foundation.records import dataclass
from trace_gen.precision import Arithmetic, Precision
from trace_gen.quantization import Scheme


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A format by the tables' name, the bytes of a weight, and what is multiplied in."""

    name: str
    weight_bytes: float
    arithmetic: Arithmetic


HALF = NumberFormat("bfloat16", 2.0, Arithmetic.HALF)
FP8 = NumberFormat("fp8", 1.0, Arithmetic.FP8)
FP8_BLOCKS = NumberFormat("fp8_block", 1.0, Arithmetic.FP8)
INT4_WEIGHTS = NumberFormat("int4_wo", 0.5, Arithmetic.HALF)
MXFP4_WEIGHTS = NumberFormat("w4a16_mxfp4", 0.5, Arithmetic.HALF)


def format_of(precision: Precision, scheme: Scheme | None) -> NumberFormat | None:
    """Return the tables' format of matrices stored as `scheme` says (None: as all numbers); None where they lack it."""
    if precision.activation_bits != 16:
        return None
    if scheme is None:
        return HALF if precision.weight_bits == 16 else None
    if scheme.bits == 8 and scheme.arithmetic in (Arithmetic.FP8, Arithmetic.EIGHT):
        return FP8_BLOCKS if _square(scheme) else FP8
    if scheme.bits == 4 and scheme.arithmetic is None:
        return INT4_WEIGHTS if scheme.scale_bits == 16 else MXFP4_WEIGHTS if scheme.block == (32, 1) else None
    return None


def cache_format(precision: Precision) -> str | None:
    """Return what the tables call the numbers of the KV cache; None where they lack them."""
    return {16: "bfloat16", 8: "fp8"}.get(precision.kv_bits) if precision.activation_bits == 16 else None


def _square(scheme: Scheme) -> bool:
    across, along = scheme.block
    return bool(across and along and along > 1)
