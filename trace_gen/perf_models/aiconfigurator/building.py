"""Makes the performance model of a model on a system: reads the tables that its operators are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from foundation.errors import UserError
from trace_gen.attention.work import AttentionShape
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.operators import Operator
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.aiconfigurator.attention import (
    CACHED,
    HEAD_SIZE,
    HEADS,
    KV_HEADS,
    REQUESTS,
    TOKENS,
    WINDOW,
    AttentionTimes,
    Heads,
)
from trace_gen.perf_models.aiconfigurator.batched import NAMES, BatchedTimes
from trace_gen.perf_models.aiconfigurator.experts import ExpertTimes
from trace_gen.perf_models.aiconfigurator.files import Kernels, System, open_system
from trace_gen.perf_models.aiconfigurator.formats import HALF, NumberFormat, cache_format, format_of
from trace_gen.perf_models.aiconfigurator.latent import as_grouped, is_latent, latent_heads
from trace_gen.perf_models.aiconfigurator.matrices import MatrixTimes
from trace_gen.perf_models.aiconfigurator.model import AiconfiguratorModel, Matrix, MatrixKey, TimesMatrix
from trace_gen.perf_models.roofline.model import RooflineModel
from trace_gen.quantization import Scheme, Schemes
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import FUSED

_KV_TYPE = "kv_cache_dtype"
HOST_BOUND = 10
"""A table whose least time is more than so many times that of 16-bit products was bound by the host."""


def build(options: PerfModelOptions, tables: Path | None, name: str | None, framework: str) -> AiconfiguratorModel:
    """Return the model; see `AiconfiguratorSettings.model`."""
    wanted = name or options.hardware.aiconfigurator_system
    if wanted is None:
        what = f"aiconfigurator has no tables of {options.hardware.name}"
        raise UserError(what, field="--perf_model", fix="use roofline, or name a system: --aiconfigurator_system NAME")
    reader = _Reader(open_system(tables, wanted, framework), options)
    return reader.model()


class _Reader:
    """Reads what a model needs of one system's tables."""

    def __init__(self, system: System, options: PerfModelOptions) -> None:
        self._system, self._options = system, options
        self._roofline = RooflineModel(options)
        self._bandwidth = options.memory_bandwidth or options.hardware.memory_bandwidth
        self._tables: dict[NumberFormat, MatrixTimes | None] = {}
        self._kernels: dict[tuple[bool, bool], Kernels | None] = {}
        self._read: dict[Path, None] = {}
        self._said: list[str] = []

    def model(self) -> AiconfiguratorModel:
        """Return the model of everything that is there."""
        matrices, experts = self._matrices(), self._experts()
        latent = self._options.architecture.absorption is not None
        for decodes in (False, True):
            self._attention_kernels(latent, decodes=decodes)
        versions = sorted({f"{path.parents[1].name} {path.parent.name}" for path in self._read})
        said = [f"kernels as measured with {', '.join(versions)}"] if versions else []
        notes = tuple(f"{self._system.source}: {sentence}" for sentence in (*said, *self._said))
        return AiconfiguratorModel(self._system.source, self._roofline, matrices, self._attention, experts, notes)

    def _matrices(self) -> dict[MatrixKey, TimesMatrix]:
        model = self._options.architecture
        operators = model_operators(model, Mesh(self._options.tensor), self._options.precision)
        found: dict[MatrixKey, TimesMatrix] = {}
        parts = [(operators.head, model.end_schemes), (operators.tail, model.end_schemes)]
        parts += [(block, kind.schemes) for block, kind in zip(operators.blocks, model.layer_kinds, strict=True)]
        for rows, schemes in parts:
            for row in rows:
                if row.kind is OperatorClass.GEMM and (times := self._times(row, schemes)) is not None:
                    found[MatrixKey(row.name, row.flops, int(row.arithmetic))] = times
        return found

    def _times(self, row: Operator, schemes: Schemes) -> TimesMatrix | None:
        number = format_of(self._options.precision, _scheme(row.name, schemes))
        if row.name in NAMES:
            return self._batched(row) if number is HALF else None
        table = self._table(number)
        return None if table is None else Matrix(*_sides(row), table)

    def _batched(self, row: Operator) -> BatchedTimes | None:
        chosen = {"bmm_dtype": HALF.name, "op_name": NAMES[row.name]}
        kernels = self._file("mla_bmm", "mla_bmm_perf", ("num_tokens", HEADS), chosen, anyone=True)
        peak = self._options.hardware.rate(row.arithmetic)
        return None if kernels is None else BatchedTimes.of(kernels, row, peak, self._bandwidth)

    def _table(self, number: NumberFormat | None) -> MatrixTimes | None:
        if number is None:
            return None
        if number not in self._tables:
            kernels = self._file("gemm", "gemm_perf", ("m", "n", "k"), {"gemm_dtype": number.name})
            peak = self._options.hardware.rate(number.arithmetic)
            made = None if kernels is None else MatrixTimes(kernels, peak, self._bandwidth, number.weight_bytes)
            self._tables[number] = made if made is None or self._is_the_kernels(number, made) else None
        return self._tables[number]

    def _is_the_kernels(self, number: NumberFormat, table: MatrixTimes) -> bool:
        """Whether a table has the time of kernels. One that was timed as the host launches them does not: engines
        launch them in a graph."""
        half = table if number is HALF else self._table(HALF)
        if half is None or table.least <= HOST_BOUND * half.least:
            return True
        times = f"{table.least / 1e3:.0f} us at least, where those of {HALF.name} take {half.least / 1e3:.1f}"
        self._said.append(
            f"products in {number.name} take {times}: timed with the host that launches them, so not read"
        )
        return False

    def _experts(self) -> ExpertTimes | None:
        model = self._options.architecture
        if len(model.mixtures) != 1:
            return None
        number = format_of(self._options.precision, _expert_scheme(model.layer_kinds[-1].schemes))
        sizes = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
        if number is None:
            return None
        peak, mixture = self._options.hardware.rate(number.arithmetic), model.mixtures[0]
        for kernels in self._files("moe", "moe_perf", sizes, {"moe_dtype": number.name}, also=("distribution",)):
            found = ExpertTimes(kernels, mixture, model.hidden_size, peak, self._bandwidth, number.weight_bytes)
            if found.known:
                self._read[kernels.path] = None
                return found
        return None

    def _attention(self, shape: AttentionShape) -> AttentionTimes | None:
        latent = is_latent(shape)
        prompts, decodes = self._attention_kernels(latent, decodes=False), self._attention_kernels(latent, decodes=True)
        absorbed = shape.tile_heads > 1
        if latent:  # a table of either knows only prompts that are expanded, and decodes that are absorbed
            prompts = None if prompts is None or absorbed else as_grouped(prompts, absorbed=False)
            decodes = None if decodes is None or not absorbed else as_grouped(decodes, absorbed=True)
        if prompts is None and decodes is None:
            return None
        heads = latent_heads(shape) if latent else self._plain_heads(shape)
        return AttentionTimes(shape, heads, self._roofline, prompts, decodes)

    def _plain_heads(self, shape: AttentionShape) -> Heads:
        numbers = shape.output_bytes * 8 / self._options.precision.activation_bits
        window = 0 if shape.window is None or shape.chunked else shape.window
        query, kv = max(1, round(shape.query_heads)), max(1, round(shape.kv_heads))
        return Heads(query, kv, max(1, round(numbers / query)), window)

    def _attention_kernels(self, latent: bool, *, decodes: bool) -> Kernels | None:
        if (latent, decodes) not in self._kernels:
            self._kernels[latent, decodes] = self._read_attention(latent, decodes=decodes)
        return self._kernels[latent, decodes]

    def _read_attention(self, latent: bool, *, decodes: bool) -> Kernels | None:
        number = cache_format(self._options.precision)
        if number is None:
            return None
        what = "generation" if decodes else "context"
        sizes = (HEADS, REQUESTS, TOKENS, CACHED)
        if latent:
            chosen = {_KV_TYPE: number, "mla_dtype": HALF.name}
            return self._file("mla", f"{what}_mla_perf", sizes, chosen, anyone=True)
        chosen = {_KV_TYPE: number, "attn_dtype": HALF.name}
        return self._file("attention", f"{what}_attention_perf", (*sizes, KV_HEADS, HEAD_SIZE, WINDOW), chosen)

    def _file(
        self, family: str, name: str, sizes: tuple[str, ...], chosen: Mapping[str, str], *, anyone: bool = False
    ) -> Kernels | None:
        """Return the rows of the newest file that has the texts `chosen`; None where there are none."""
        kernels = next(self._files(family, name, sizes, chosen, anyone=anyone), None)
        if kernels is not None:
            self._read[kernels.path] = None
        return kernels

    def _files(
        self,
        family: str,
        name: str,
        sizes: tuple[str, ...],
        chosen: Mapping[str, str],
        *,
        also: tuple[str, ...] = (),
        anyone: bool = False,
    ) -> Iterator[Kernels]:
        """Yield those rows of each file, the newest first, that have the texts `chosen`; with `also` other texts."""
        for kernels in self._system.read(family, name, sizes, (*chosen, *also), anyone=anyone):
            own = kernels.where(**chosen)
            if len(own.times):
                yield own


def _scheme(name: str, schemes: Schemes) -> Scheme | None:
    return next((scheme for role, scheme in schemes if FUSED.of(role) == name), None)


def _expert_scheme(schemes: Schemes) -> Scheme | None:
    return dict(schemes).get("expert_down_proj")


def _sides(row: Operator) -> tuple[int, int]:
    """Return the outputs and inputs of a matrix of 16-bit activations."""
    return row.output_bytes // 2, row.input_bytes // 2
