"""Quantised matrices: how each is stored, with its scales, and multiplied; and which of a model's matrices are.

`trace_gen.quantization_config` reads this from a config.json. It is said for each layer and role, so that layers whose
matrices are stored differently are of different kinds.
"""

from __future__ import annotations

from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.precision import Arithmetic, ceil_div

ATTENTION = ("q_proj", "k_proj", "v_proj", "q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj", "o_proj")
EXPERTS = ("expert_gate_up_proj", "expert_down_proj")
SHARED_EXPERTS = ("shared_gate_up_proj", "shared_down_proj")
DENSE = ("gate_proj", "up_proj", "down_proj", "fc1", "fc2")
QUANTIZED_ROLES = frozenset({*ATTENTION, *DENSE, *EXPERTS, *SHARED_EXPERTS})
"""Roles with matrices that methods quantise unless they say otherwise: all but routers and the LM head."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a matrix is stored and multiplied.

    - `bits` a weight; `block`: the inputs and the outputs that share a scale (None: all of them); `scale_bits`,
      `zero_bits`: what is stored for each block; `index_bits`: for each input;
    - `matrix_bits`: once for the whole of it;
    - `arithmetic`: what it is multiplied in (None: the activations' own width);
    - `whole_blocks`: ranks that share the inputs hold whole blocks of them, as equally many as can be (mxfp4 in vLLM);
      otherwise blocks that do not divide a rank's inputs are refused.
    """

    bits: int
    block: tuple[int | None, int | None] = (None, None)
    scale_bits: int = 16
    zero_bits: int = 0
    index_bits: int = 0
    matrix_bits: int = 0
    arithmetic: Arithmetic | None = None
    whole_blocks: bool = False

    @property
    def described(self) -> str:
        """What is stored and computed, in a few words."""
        done = "the activations' own width" if self.arithmetic is None else self.arithmetic.name
        return f"matrices of {self.bits} bits with their scales, multiplied in {done}"

    def part(self, width: int, ranks: int) -> int:
        """Return how many of `width` inputs the fullest of `ranks` ranks holds."""
        unit = self.block[0] if self.whole_blocks and self.block[0] else 1
        return min(width, unit * ceil_div(ceil_div(width, unit), ranks))

    def matrix_bytes(self, inputs: int, outputs: int, *, shared: bool = False) -> int:
        """Return the bytes of a matrix with its scales, zero points and indices; `shared`: ranks share its inputs.

        Raises `UserError` where inputs that share a scale do not divide a rank's, which vLLM refuses, too. (Blocks of
        several outputs may be cut at the edge of a matrix, but not where ranks share it.)
        """
        across, along = self.block
        if across and (along == 1 or shared) and inputs % across:
            raise UserError(
                f"groups of {across} inputs share a scale, but a rank has {inputs}, which they do not divide",
                field="quantization_config",
                fix="use fewer tensor-parallel NPUs, or another checkpoint",
            )
        blocks = (ceil_div(inputs, across) if across else 1) * (ceil_div(outputs, along) if along else 1)
        blocks = ceil_div(blocks * (self.scale_bits + self.zero_bits), 8)
        beside = ceil_div(inputs * self.index_bits, 8) + ceil_div(self.matrix_bits, 8)
        return ceil_div(inputs * outputs * self.bits, 8) + blocks + beside


@dataclass(frozen=True, slots=True)
class Stored:
    """That the matrices of `roles`, in `layers` (None: everywhere), have a `scheme` (None: they are not quantised)."""

    roles: frozenset[str]
    scheme: Scheme | None
    layers: frozenset[int] | None = None


Schemes = tuple[tuple[str, Scheme], ...]
"""The quantised roles of one layer, or of the model's ends, in order, with how they are stored."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a checkpoint stores its matrices: by `stored`, of which a later entry overrides those before it.

    - `method`: what the checkpoint, or the flag, calls it;
    - `kv_bits`: bits of a number in the KV cache, where the checkpoint says (None: it does not);
    - `online`: the engine quantises them as it loads a checkpoint that is not quantised.
    """

    method: str
    stored: tuple[Stored, ...]
    kv_bits: int | None = None
    online: bool = False

    def schemes(self, layer: int | None = None) -> Schemes:
        """Return the quantised roles of a layer; of what stands before and after the layers by default."""
        found: dict[str, Scheme | None] = {}
        for entry in self.stored:
            if entry.layers is None or layer in entry.layers:
                found |= dict.fromkeys(entry.roles, entry.scheme)
        return tuple((role, found[role]) for role in sorted(found) if found[role] is not None)  # type: ignore[misc]

    @property
    def described(self) -> str:
        """What is stored and computed, in a few words."""
        kept = "" if self.kv_bits is None else f", KV cache in {self.kv_bits} bits"
        how = " while it is loaded" if self.online else ""
        said = dict.fromkeys(entry.scheme.described for entry in self.stored if entry.scheme is not None)
        return f"{self.method}{how}, {' and '.join(said) or 'no matrices'}{kept}"

    @property
    def bits(self) -> str:
        """The bits of its weights, for a message: ``4``, or ``4 and 8``."""
        widths = {entry.scheme.bits for entry in self.stored if entry.scheme is not None}
        return " and ".join(map(str, sorted(widths))) or "16"


ONLINE = {
    "fp8": Quantization(
        "fp8", (Stored(QUANTIZED_ROLES, Scheme(8, scale_bits=32, arithmetic=Arithmetic.FP8)),), online=True
    )
}
"""What vLLM makes of a checkpoint that is not quantised, by its names: one scale a matrix, activations quantised as
they come, everything but linear layers and experts as it is (0.19, vllm/model_executor/layers/quantization/fp8.py)."""
