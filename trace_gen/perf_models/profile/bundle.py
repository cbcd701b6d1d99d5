"""Reads a folder of tables that LLMServingSim's profiler wrote, as it is.

    meta.yaml                   the device, the model, what was measured
    tp<N>/dense.csv             layer,tokens,time_us: matrix products, norms, element-wise operators
    tp<N>/per_sequence.csv      layer,sequences,time_us: LM head and sampler
    tp<N>/attention.csv         prefill_chunk,kv_prefill,n_decode,kv_decode,time_us
    tp<N>/skew.csv              attention of unequal contexts, used where meta.yaml says that its fit is enabled
    tp1/moe.csv                 tokens,activated_experts,time_us: router and experts, measured as one
    arch_<architecture>.yaml    there or beside the folder: the operators of a block in order (optional)

Times are microseconds of one operator of one layer, on one of N tensor-parallel ranks. Source of the format:
docs/docs/profiler and serving/core/trace_generator.py of github.com/casys-kaist/LLMServingSim (August 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundation.documents import read_yaml
from foundation.errors import UserError
from foundation.fields import Fields
from trace_gen.measured.curve import Curve
from trace_gen.measured.reading import MeasuredTable, read_layers, read_measured
from trace_gen.perf_models.profile.attention import AXES as ATTENTION_AXES
from trace_gen.perf_models.profile.attention import AttentionTable
from trace_gen.perf_models.profile.experts import AXES as EXPERT_AXES
from trace_gen.perf_models.profile.experts import ExpertTable
from trace_gen.perf_models.profile.skew import read_skew

META = "meta.yaml"
_WHAT = "profile"
_SECTIONS = ("prologue", "pre_attn", "post_attn", "mlp_dense", "mlp_moe", "head")


@dataclass(frozen=True, slots=True)
class Meta:
    """What `meta.yaml` says.

    The device as it is called here, the model and its kind, the numbers (``bf16``, ``bf16-kvfp8``), the tensor-parallel
    degrees, and whether `skew.csv` is to be used.
    """

    path: Path
    hardware: str
    model: str
    architecture: str
    variant: str
    degrees: tuple[int, ...]
    uses_skew: bool


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The tables of one tensor-parallel degree; `sequence`: the operators of a model in order, where they are known."""

    dense: Mapping[str, Curve]
    per_sequence: Mapping[str, Curve]
    attention: AttentionTable
    experts: ExpertTable | None
    sequence: tuple[str, ...]


def read_meta(folder: Path) -> Meta:
    """Return what `meta.yaml` of `folder` says; what is wrong with it is a `UserError`."""
    path = folder / META
    fields = Fields.of(read_yaml(path, _WHAT))
    meta = Meta(
        path=path,
        hardware=fields.text("hardware"),
        model=fields.text("model"),
        architecture=fields.text("architecture", default=""),
        variant=fields.text("variant", default="bf16"),
        degrees=fields.integers("tp_degrees", low=1),
        uses_skew=fields.object("skew_fit").boolean("enabled", default=False),
    )
    fields.finish()
    return meta


def read_measured_rank(folder: Path, meta: Meta, tensor: int, *, experts: bool) -> Measured:
    """Return the tables of one of `tensor` tensor-parallel ranks; `experts`: the model has a mixture of them.

    A degree that was not measured, a file that lacks or is malformed is a `UserError`.
    """
    rank = folder / f"tp{tensor}"
    if not rank.is_dir():
        known = ", ".join(map(str, meta.degrees)) or "none"
        what = f"nothing was measured for {tensor} tensor-parallel NPUs"
        raise UserError(what, path=folder, field="--npu_num", fix=f"measured: {known}")
    dense = _curves(read_layers(rank / "dense.csv", ("tokens",)))
    per_sequence = _curves(read_layers(rank / "per_sequence.csv", ("sequences",)))
    attention = AttentionTable(read_measured(rank / "attention.csv", ATTENTION_AXES))
    if meta.uses_skew and (rank / "skew.csv").is_file():
        attention.skew = read_skew(rank / "skew.csv", attention.alone_ns)
    # Experts are measured whole, on one NPU: how many of them an NPU has is its share of the tokens and weights.
    mixture = ExpertTable(read_measured(folder / "tp1" / "moe.csv", EXPERT_AXES)) if experts else None
    return Measured(dense, per_sequence, attention, mixture, _sequence(folder, meta))


def _curves(tables: Mapping[str, MeasuredTable]) -> dict[str, Curve]:
    return {
        name: Curve(dict(zip(table.sizes[:, 0].tolist(), table.times.tolist(), strict=True)))
        for name, table in tables.items()
    }


def _sequence(folder: Path, meta: Meta) -> tuple[str, ...]:
    """Return the operators that the block catalogue lists; none where there is no such file."""
    named = f"arch_{meta.architecture}.yaml"
    for path in (folder / named, folder.parent / named):
        if path.is_file():
            fields = Fields.of(read_yaml(path, "block catalogue"))
            sequence = fields.object("sequence", required=True)
            names = [name for section in _SECTIONS for name in sequence.texts(section)]
            fields.finish()
            return tuple(names)
    return ()


_VARIANT = re.compile(r"(bf16|fp16|fp8|fp32)(?:-kv(fp8|bf16|fp16))?")


def widths_of(variant: str) -> tuple[int, int] | None:
    """Return the bits of weights and of the KV cache that a variant (``bf16``, ``bf16-kvfp8``) names; None: unknown."""
    found = _VARIANT.fullmatch(variant)
    if found is None:
        return None
    bits = {"bf16": 16, "fp16": 16, "fp8": 8, "fp32": 32}
    own = bits[found[1]]
    return own, bits[found[2]] if found[2] else own
