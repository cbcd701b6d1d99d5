"""The estimator's registries: GPUs, models and prompt speeds as three small JSON files of one folder.

    gpu.json     {GPU: {"memory_bandwidth_gb_s": 2039}}                      GB/s, GB = 1e9 bytes
    model.json   {MODEL: {"weight_bytes": 13316947968, "kv_bytes_per_token": 524288}}
    ptps.json    {MODEL: {GPU: {"ptps": 9700.5}}}                            prompt tokens a second

A number may stand in place of an object with one figure. A file that is missing holds nothing. What an entry holds
beside the fields that are read stays when another entry is written. Two programs must not write one file at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.documents import read_json
from foundation.fields import Fields
from foundation.files import atomic_write
from foundation.records import dataclass
from trace_gen.hardware import plain_name
from trace_gen.precision import WIDTHS

BANDWIDTH = ("memory_bandwidth_gb_s", "memory_bandwidth", "bandwidth", "bw")
WEIGHTS = ("weight_bytes", "model_size", "s_mw")
KV = ("kv_bytes_per_token", "kv_cache_bytes_per_token", "s_kvc")
PTPS = ("ptps", "k")
"""The names of each figure, the first of which is written."""
KV_WIDTHS = (8, 16)
"""Bits of a number in the KV cache, where they are not those of the weights."""
FASTEST = 1e9
"""GB/s, and prompt tokens a second: far more than there is, far less than floats hold."""


@dataclass(frozen=True, slots=True)
class GpuEntry:
    """A GPU: `bandwidth` of its memory, bytes/s."""

    name: str
    bandwidth: float


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model: bytes of its weights, and of the KV cache of one token, of numbers of `bits` and `kv_bits` bits.

    `config`: the config.json that it was made from, where it is no shipped model.
    """

    name: str
    weight_bytes: float
    kv_bytes_per_token: float
    bits: int = 16
    kv_bits: int = 16
    config: str | None = None


@dataclass(frozen=True, slots=True)
class PtpsEntry:
    """A prompt speed, tokens/s, and where it is from; the samples ``[n]`` that it was fitted to, tokens and seconds."""

    ptps: float
    source: str = "not said"
    tokens: Sequence[int] = ()
    latencies: Sequence[float] = ()


class Registries:
    """The three files of a folder, read when they are asked for. Wrong fields are a `UserError` with the line."""

    def __init__(self, folder: Path) -> None:
        self.gpus, self.models, self.prompts = (folder / f"{name}.json" for name in ("gpu", "model", "ptps"))

    def gpu(self, *names: str) -> GpuEntry | None:
        """Return the entry of a GPU that has any of `names` (case and punctuation aside), or None."""
        fields = _read(self.gpus, "registry of GPUs")
        name = _named(fields, names, plain_name)
        if name is None:
            return None
        figures, alone = _figures(fields, name, BANDWIDTH)
        if figures.has(*alone):
            bandwidth = figures.positive_number(*alone, high=FASTEST)
        else:
            bandwidth = 1.0
            figures.problem("the memory bandwidth is not filled in", fix=f"write {BANDWIDTH[0]}: GB/s, GB = 1e9 bytes")
        fields.finish()
        return GpuEntry(name, bandwidth * 1e9)

    def has_gpu(self, name: str) -> bool:
        """Whether a GPU is entered, with a bandwidth or without."""
        return _named(_read(self.gpus, "registry of GPUs"), [name], plain_name) is not None

    def model(self, *names: str) -> ModelEntry | None:
        """Return the entry of a model that has any of `names` (case aside), or None."""
        fields = _read(self.models, "registry of models")
        name = _named(fields, names)
        if name is None:
            return None
        entry = fields.object(name, required=True)
        read = ModelEntry(
            name,
            entry.positive_number(*WEIGHTS),
            entry.number(*KV, low=0),
            _bits(entry, "bits"),
            _bits(entry, "kv_bits"),
            entry.text("config", default=None),
        )
        if read.kv_bits not in (read.bits, *KV_WIDTHS):
            entry.wrong("kv_bits", f"one of {read.bits}, {', '.join(map(str, KV_WIDTHS))}, which a KV cache may have")
        fields.finish()
        return read

    def ptps(self, model: str, gpus: Iterable[str]) -> PtpsEntry | None:
        """Return the prompt speed of a model on a GPU that has any of the names, or None."""
        fields = _read(self.prompts, "registry of prompt speeds")
        name = _named(fields, [model])
        if name is None:
            return None
        of_model = fields.object(name)
        gpu = _named(of_model, gpus, plain_name)
        if gpu is None:
            fields.finish()
            return None
        figures, alone = _figures(of_model, gpu, PTPS)
        speed = figures.positive_number(*alone, high=FASTEST)
        source = "not said" if figures is of_model else figures.text("source", default="not said")
        fields.finish()
        return PtpsEntry(speed, source)

    def add_gpu(self, name: str, bandwidth: float | None, source: str) -> None:
        """Enter a GPU with its bandwidth, bytes/s; None is left for the user to fill in."""
        shown = None if bandwidth is None else bandwidth / 1e9
        _add(self.gpus, "registry of GPUs", (name,), {BANDWIDTH[0]: shown, "source": source})

    def add_model(self, entry: ModelEntry) -> None:
        """Enter a model."""
        figures: dict[str, Any] = {WEIGHTS[0]: entry.weight_bytes, KV[0]: entry.kv_bytes_per_token}
        figures |= {"bits": entry.bits, "kv_bits": entry.kv_bits}
        figures |= {} if entry.config is None else {"config": entry.config}
        _add(self.models, "registry of models", (entry.name,), figures)

    def add_ptps(self, model: str, gpu: str, entry: PtpsEntry) -> None:
        """Enter a prompt speed with its samples."""
        figures = {PTPS[0]: entry.ptps, "source": entry.source}
        figures |= {"tokens": list(entry.tokens), "latency_s": list(entry.latencies)}
        _add(self.prompts, "registry of prompt speeds", (model, gpu), figures)


def _read(path: Path, what: str) -> Fields:
    """Return the fields of a registry; of one that is missing none."""
    if not path.exists():
        from foundation.documents import Document

        return Fields.of(Document({}, what, path, "{}"))
    return Fields.of(read_json(path, what))


def _named(fields: Fields, names: Iterable[str], alike: Callable[[str], str] = str.casefold) -> str | None:
    """Return the key of an entry: one of `names` as it is, else one that is `alike`; opt-1.3b is no opt-13b."""
    wanted, known = list(names), list(fields.names())
    exact = next((name for name in wanted if name in fields.values), None)
    if exact is not None:
        return exact
    plain = [alike(name) for name in wanted]
    return next((name for name in known if alike(name) in plain), None)


def _figures(fields: Fields, name: str, aliases: Sequence[str]) -> tuple[Fields, Sequence[str]]:
    """Return where the figure of the entry `name` stands, and its names: in an object, or in its place."""
    value = fields.values[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return fields, (name,)
    return fields.object(name), aliases


def _bits(entry: Fields, name: str) -> int:
    bits = entry.integer(name, default=16)
    if bits not in WIDTHS:
        entry.wrong(name, f"one of {', '.join(map(str, WIDTHS))}")
        return 16
    return bits


def _add(path: Path, what: str, place: Sequence[str], figures: Mapping[str, Any]) -> None:
    """Write the figures of the entry at `place` over those it has; what else there is stays."""
    fields = _read(path, what)
    whole = at = dict(fields.values)
    for name in place[:-1]:
        fields = fields.object(name)
        at[name] = dict(fields.values)
        at = at[name]
    fields.finish()
    before = at.get(place[-1])
    at[place[-1]] = {**before, **figures} if isinstance(before, dict) else dict(figures)
    with atomic_write(path) as stream:
        stream.write(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
