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
from pathlib import Path

from foundation.documents import read_yaml
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.printable import shorten
from foundation.records import dataclass
from trace_gen.hardware import plain_name
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.reading import read_layers, read_measured
from trace_gen.model_operators import model_operators
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.attention import AXES as ATTENTION_AXES
from trace_gen.perf_models.profile.attention import AttentionTable, UnequalAttention
from trace_gen.perf_models.profile.building import FLAG, check_form, operator_names, profile_model
from trace_gen.perf_models.profile.dimensions import grouped_sizes
from trace_gen.perf_models.profile.formats import ProfileFormat, profile_formats
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.perf_models.profile.skew import read_skew
from trace_gen.perf_models.profile.tables import Measured

META = "meta.yaml"
_WHAT = "profile"
_SIZES = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
_SECTIONS = ("prologue", "pre_attn", "post_attn", "mlp_dense", "mlp_moe", "head")


@dataclass(frozen=True, slots=True)
class Meta:
    """What `meta.yaml` says.

    The device as it is called here, the model and its kind, the numbers (``bf16``, ``bf16-kvfp8``), the tensor-parallel
    degrees, and whether `skew.csv` is to be used. `sizes`: of the model that was run, or of one of its ranks, as far as
    they are said.
    """

    path: Path
    hardware: str
    model: str
    architecture: str
    variant: str
    degrees: tuple[int, ...]
    uses_skew: bool
    sizes: Mapping[str, int]


def read_meta(folder: Path) -> Meta:
    """Return what `meta.yaml` of `folder` says; what is wrong with it is a `UserError`."""
    path = folder / META
    fields = Fields.of(read_yaml(path, _WHAT))
    run = fields.object("engine_effective").object("hf_overrides")
    meta = Meta(
        path=path,
        hardware=fields.text("hardware"),
        model=fields.text("model"),
        architecture=fields.text("architecture", default=""),
        variant=fields.text("variant", default="bf16"),
        degrees=fields.integers("tp_degrees", low=1),
        uses_skew=fields.object("skew_fit").boolean("enabled", default=False),
        sizes={name: run.positive_int(name) for name in _SIZES if run.has(name)},
    )
    fields.finish()
    return meta


def _model(options: PerfModelOptions, folder: Path) -> ProfileModel:
    """Return the model of the tables in `folder`.

    Raises `UserError` where a file is missing or malformed, and where the tables are of another device, other numbers,
    another model or other tensor-parallel degrees than what is simulated.
    """
    meta = read_meta(folder)
    check_form(options)
    _check_fits(options, meta)
    measured = read_rank(folder, meta, options.tensor, experts=bool(options.architecture.mixtures))
    _check_sequence(options, folder, meta)
    return profile_model(options, measured)


def read_rank(folder: Path, meta: Meta, tensor: int, *, experts: bool) -> Measured:
    """Return the tables of one of `tensor` tensor-parallel ranks; `experts`: the model has a mixture of them.

    A degree that was not measured, a file that lacks or is malformed is a `UserError`.
    """
    rank = _rank(folder, tensor)
    layers = {
        **read_layers(rank / "per_sequence.csv", ("sequences",)),
        **read_layers(rank / "dense.csv", ("tokens",)),
    }
    # Experts are measured whole, on one NPU: how many of them an NPU has is its share of the tokens and weights.
    mixture = None
    if experts:
        moe = read_measured(folder / "tp1" / "moe.csv", ("tokens", "activated_experts"))
        mixture = Lines(moe.sizes, moe.times)
    curves = {name: Curve.of(table.sizes[:, 0], table.times) for name, table in layers.items()}
    attention = _attention(rank, meta)
    return Measured(str(folder), curves, attention, lambda: _attention(_rank(folder, 1), meta), mixture)


def _rank(folder: Path, tensor: int) -> Path:
    """Return the folder of one of `tensor` ranks; a degree that was not measured is a `UserError`."""
    rank = folder / f"tp{tensor}"
    if not rank.is_dir():
        known = ", ".join(sorted(path.name.removeprefix("tp") for path in folder.glob("tp*"))) or "nothing"
        what = f"nothing was measured for {tensor} tensor-parallel NPUs"
        raise UserError(what, path=folder, field="--npu_num", fix=f"measured: {known}")
    return rank


def _attention(rank: Path, meta: Meta) -> UnequalAttention:
    table = AttentionTable(read_measured(rank / "attention.csv", ATTENTION_AXES))
    if meta.uses_skew and (rank / "skew.csv").is_file():
        return UnequalAttention(table, read_skew(rank / "skew.csv", table.alone_ns))
    return UnequalAttention(table, None)


def _check_fits(options: PerfModelOptions, meta: Meta) -> None:
    hardware, precision = options.hardware, options.precision
    if plain_name(meta.hardware) not in {plain_name(hardware.name), plain_name(hardware.device)}:
        raise UserError(
            f"{shorten(meta.hardware)}, but {hardware.name} is simulated",
            path=meta.path,
            field="hardware",
            fix=f"give --hardware {shorten(meta.hardware)}, or tables that were measured on {hardware.name}",
        )
    widths = widths_of(meta.variant)
    if widths is not None and widths != (precision.weight_bits, precision.kv_bits):
        raise UserError(
            f"{meta.variant!r}, but weights of {precision.weight_bits} bits and a KV cache of {precision.kv_bits} bits "
            "are simulated",
            path=meta.path,
            field="variant",
            fix="give tables that were measured with these, or other --dtype and --kv_cache_dtype",
        )
    for name, ours in grouped_sizes(options.architecture).items():
        if name in meta.sizes and not any(max(1, ours // degree) == meta.sizes[name] for degree in (1, *meta.degrees)):
            raise UserError(
                f"{name} {meta.sizes[name]} was measured, but {options.architecture.name} has {ours}",
                path=meta.path,
                field="engine_effective",
                fix="give the tables of this model",
            )


def _check_sequence(options: PerfModelOptions, folder: Path, meta: Meta) -> None:
    """Refuse a block catalogue that has an operator which the model has not."""
    wanted = operator_names(model_operators(options.architecture))
    if other := [name for name in _sequence(folder, meta) if name not in wanted]:
        what = f"the block catalogue has {', '.join(map(shorten, other[:3]))}, which the model has not"
        raise UserError(what, path=folder, field=FLAG, fix="give the tables of this model")


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


def _recognises(path: Path) -> bool:
    return (path / META).is_file()


def _device(path: Path) -> str:
    return read_meta(path).hardware


profile_formats.register("llmservingsim")(
    ProfileFormat(f"a folder with {META} (LLMServingSim's profiler)", _recognises, _device, _model)
)
