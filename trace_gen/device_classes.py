"""How much of its datasheet a kind of device reaches, by operator class, from ``configs/device_classes/*.json``.

A class serves every device of one architecture: kernels are written, and tuned, for an architecture. A device names its
class and may state numbers of its own, which go before; what neither states is `EFFICIENCY_CLASSES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from foundation.documents import read_json
from foundation.fields import Fields
from foundation.records import dataclass
from trace_gen.config_root import CONFIG_ROOT

CLASS_FOLDER = CONFIG_ROOT / "device_classes"
_WHAT = "device class"


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How much of the datasheet one class of operators reaches.

    `compute` and `memory` are fractions of peak FLOP rate and of memory bandwidth (a cache may lift the latter above
    1); `overhead_ns` is the shortest time of such an operator: launching it, filling and draining the device.
    `tile_ns` is what attention spends on each tile of work beside arithmetic and memory, on one compute unit;
    `serial_ns` what decodes take at least for each token of the longest context, where kernels do not split it over
    compute units.
    """

    compute: float
    memory: float
    overhead_ns: float
    tile_ns: float = 0.0
    serial_ns: float = 0.0


EFFICIENCY_CLASSES: Mapping[str, Efficiency] = {
    "gemm": Efficiency(0.88, 0.94, 5200.0),
    "gemm_8bit": Efficiency(0.88, 0.94, 5200.0),
    "grouped_gemm": Efficiency(0.88, 0.94, 5200.0),
    "attention_prefill": Efficiency(0.70, 0.96, 6150.0, 5100.0),
    "attention_decode": Efficiency(1.0, 0.91, 12400.0, 2300.0),
    "attention_decode_ungrouped": Efficiency(1.0, 0.91, 12400.0, 2300.0),
    "elementwise": Efficiency(1.0, 0.77, 2250.0),
    "embedding": Efficiency(1.0, 1.34, 3400.0),
    "sampler": Efficiency(1.0, 0.37, 17500.0),
}
"""Efficiencies where neither a device nor its class states any: midway between the two devices whose layers were
measured (`docs/performance_models.md`). See also `ALIKE`."""

ALIKE = {"attention_decode_ungrouped": "attention_decode", "gemm_8bit": "gemm", "grouped_gemm": "gemm"}
"""What is as another class of operators where a file does not say otherwise: decodes whose query heads share no KV
head, products of 8-bit numbers, and those of experts."""

ATTENTION_KERNELS = ("fa2", "fa3")
DEFAULT_CACHE_SPEEDUP = 3.5
MOST_SERIAL_NS = 1e6
MOST_EFFICIENT = 2.0
"""Fractions of a datasheet's figure: above 1 where clocks or a cache beat it, never far above."""


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """What devices of one architecture have in common; the fields are `trace_gen.hardware.Hardware`'s."""

    name: str | None
    attention_kernels: str
    cache_speedup: float
    efficiencies: Mapping[str, Efficiency]
    sources: Mapping[str, str]


UNCLASSED = DeviceClass(None, "fa2", DEFAULT_CACHE_SPEEDUP, EFFICIENCY_CLASSES, {})
"""The class of a device that names none."""


def class_of(fields: Fields) -> DeviceClass:
    """Return the class that a device names, `UNCLASSED` where it names none; one that is not there is noted."""
    shipped = {path.stem: path for path in sorted(CLASS_FOLDER.glob("*.json"))}
    name = fields.choice("class", (*shipped,), default=None)
    return read_device_class(shipped[name]) if name in shipped else UNCLASSED


def read_device_class(path: Path) -> DeviceClass:
    """Return the class in `path`. Raises `UserError` for wrong fields (all of them at once)."""
    fields = Fields.of(read_json(path, _WHAT))
    fields.only({"devices", "attention_kernels", "cache_speedup", "efficiency", "sources"})
    fields.text("devices")
    sources = fields.object("sources")
    told = {field: sources.text(field) for field in sources.names()}
    kind = read_class_fields(fields, UNCLASSED)
    fields.finish()
    return DeviceClass(path.stem, kind.attention_kernels, kind.cache_speedup, kind.efficiencies, told)


def read_class_fields(fields: Fields, default: DeviceClass) -> DeviceClass:
    """Return `default` with what `fields` state in its place; problems are noted in them."""
    return DeviceClass(
        default.name,
        fields.choice("attention_kernels", ATTENTION_KERNELS, default=default.attention_kernels),
        fields.positive_number("cache_speedup", default=default.cache_speedup),
        _read_efficiencies(fields.object("efficiency"), default.efficiencies),
        default.sources,
    )


def _read_efficiencies(fields: Fields, defaults: Mapping[str, Efficiency]) -> dict[str, Efficiency]:
    """Return every class's efficiency: the file's, and the defaults for what it leaves out."""
    fields.only(set(EFFICIENCY_CLASSES))
    result = dict(defaults)
    for name in sorted(fields.names(), key=lambda name: (name in ALIKE, name)):
        if name not in EFFICIENCY_CLASSES:
            continue
        part, default = fields.object(name), result[name]
        part.only({"compute", "memory", "overhead_ns", "tile_ns", "serial_ns"})
        result[name] = Efficiency(
            part.positive_number("compute", high=MOST_EFFICIENT, default=default.compute),
            part.positive_number("memory", high=MOST_EFFICIENT, default=default.memory),
            part.positive_number("overhead_ns", default=default.overhead_ns),
            part.positive_number("tile_ns", default=default.tile_ns),
            part.number("serial_ns", low=0.0, high=MOST_SERIAL_NS, default=default.serial_ns),
        )
        for other, like in ALIKE.items():
            if like == name and defaults[other] == defaults[like]:
                result[other] = result[name]
    return result
