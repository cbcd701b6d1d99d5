"""What a device can do: datasheet numbers and fitted efficiencies, from ``configs/hardware/*.json`` or a user's file.

A file gives each number's source. Units in the files: TFLOPS (1e12 a second, dense), GB/s (1e9 bytes a second, one
direction for links), GB (1e9 bytes) or GiB (2^30), MiB, ns. Files of other tools are read by `hardware_formats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from foundation.documents import read_json
from foundation.errors import UserError, near_names
from foundation.fields import Fields
from foundation.records import dataclass
from trace_gen.config_root import CONFIG_ROOT, is_file
from trace_gen.device_classes import Efficiency, class_of, read_class_fields
from trace_gen.hardware_formats import hardware_formats
from trace_gen.precision import Arithmetic

HARDWARE_FOLDER = CONFIG_ROOT / "hardware"
_DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8")
_HALF = ("bf16", "fp16")
_FORMATS = {
    Arithmetic.SINGLE: ("fp32",),
    Arithmetic.HALF: _HALF,
    Arithmetic.EIGHT: ("fp8", "int8", *_HALF),
    Arithmetic.FP8: ("fp8", *_HALF),
    Arithmetic.INT8: ("int8", *_HALF),
}
"""The number formats that arithmetic runs in, the first that a device has."""
_WHAT = "hardware configuration"


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device. Rates are FLOP/s and bytes/s, sizes bytes, times ns.

    - `peak_flops`: dense rate by number format (``fp16``, ``bf16``, ``fp8``, ``int8``, ``fp32``);
    - `memory_bytes` is the datasheet's, `driver_memory_bytes` what its driver shows to programs;
    - `cache_bytes`: the last-level cache, from which small activations are served at `cache_speedup` times the
      memory bandwidth;
    - `compute_units`: multiprocessors (or their like), over which attention's tiles are spread;
    - `link_bandwidth`, `link_latency_ns`: what the device's own interconnect suggests for ``--link_bw`` and
      ``--link_latency``;
    - `attention_kernels`: ``fa2`` kernels work through a batch with a prompt as chunks, its decodes, too, at several
      times what they cost alone; ``fa3`` kernels keep the two apart (FlashAttention's versions, and their like);
    - `efficiencies`: by operator class, the device's own before its `device_class`'s (`trace_gen.device_classes`);
    - `fabric`: what joins several of them, by the name that ``--fabric`` takes; None where nobody measured it;
    - `power_w`: watts that the device takes at most, by its maker (TDP, board or module power); None where none is
      published;
    - `aiconfigurator_system`: the system of aiconfigurator's whose kernels were measured on it, if any.
    """

    name: str
    device: str
    peak_flops: Mapping[str, float]
    memory_bandwidth: float
    memory_bytes: int
    driver_memory_bytes: int
    cache_bytes: int
    cache_speedup: float
    compute_units: int
    link_bandwidth: float
    link_latency_ns: int
    efficiencies: Mapping[str, Efficiency]
    sources: Mapping[str, str]
    attention_kernels: str = "fa2"
    fabric: str | None = None
    device_class: str | None = None
    power_w: float | None = None
    aiconfigurator_system: str | None = None

    def rate(self, arithmetic: Arithmetic) -> float:
        """Return the FLOP/s of `arithmetic`; formats the device lacks run at the next wider."""
        for dtype in _FORMATS[arithmetic]:
            if dtype in self.peak_flops:
                return self.peak_flops[dtype]
        raise UserError(f"{self.name} states no rate for 32-bit numbers", fix="use fewer bits or other hardware")


MOST_SHOWN = 1.1
"""Of the datasheet's memory, what a driver shows at most: datasheets say GB and mean GiB."""

MOST_WATTS = 1e5
"""Of one device: far more than any takes."""


def shipped_hardware() -> dict[str, Path]:
    """Return the files of the devices that ship with the project, by name."""
    return {path.stem: path for path in sorted(HARDWARE_FOLDER.glob("*.json"))}


def load_hardware(name_or_path: str) -> Hardware:
    """Return a shipped device by name (spelling is tolerant: ``rtx-3090``, ``A100 80G``) or the one in a file.

    Raises `UserError` for an unknown name (with near ones) and for wrong fields (all of them at once).
    """
    path = Path(name_or_path)
    if is_file(path) or path.suffix == ".json":
        return read_hardware(path)
    shipped = shipped_hardware()
    wanted = plain_name(name_or_path)
    for name, candidate in shipped.items():
        if plain_name(name) == wanted:
            return read_hardware(candidate)
    for candidate in shipped.values():
        aliases = Fields.of(read_json(candidate, _WHAT)).texts("aliases")
        if wanted in map(plain_name, aliases):
            return read_hardware(candidate)
    raise UserError(
        f"unknown hardware {name_or_path[:80]!r}",
        fix=f"{near_names(name_or_path, shipped)} (or give the path of a hardware file)",
    )


def read_hardware(path: Path) -> Hardware:
    """Return the device described in `path`, in our own fields or in a format of `hardware_formats`."""
    fields = Fields.of(read_json(path, _WHAT))
    other = next((one for one in map(hardware_formats.get, hardware_formats) if one.recognises(fields.values)), None)
    hardware = _read_own(fields, path.stem) if other is None else other.read(fields, path.stem)
    fields.finish()
    return hardware


def _read_own(fields: Fields, name: str) -> Hardware:
    """Return the device described in our own fields; problems are noted in them."""
    fields.only(
        {
            "name",
            "device",
            "aliases",
            "peak_tflops",
            "memory_bandwidth_gb_s",
            "memory_gb",
            "memory_gib",
            "driver_memory_gib",
        }
        | {
            "cache_mib",
            "cache_speedup",
            "compute_units",
            "link_gb_s",
            "link_latency_ns",
            "power_w",
            "fabric",
            "class",
            "aiconfigurator_system",
            "attention_kernels",
            "efficiency",
            "sources",
        }
    )
    peaks = fields.object("peak_tflops")
    peaks.only(set(_DTYPES))
    rates = {dtype: peaks.positive_number(dtype) * 1e12 for dtype in peaks.names()}
    if fields.sound("peak_tflops") and not {"bf16", "fp16"} & set(rates):
        fields.problem("neither bf16 nor fp16 is given", "peak_tflops")
    unit = fields.one_of("memory_gb", "memory_gib")
    memory = fields.positive_number(unit, default=1.0) * (2**30 if unit == "memory_gib" else 10**9)
    sources = fields.object("sources")
    kind = read_class_fields(fields, class_of(fields))
    hardware = Hardware(
        name=fields.text("name", default=name),
        device=fields.text("device", default=name),
        peak_flops=rates,
        memory_bandwidth=fields.positive_number("memory_bandwidth_gb_s") * 1e9,
        memory_bytes=round(memory),
        driver_memory_bytes=round(fields.positive_number("driver_memory_gib", default=memory / 2**30) * 2**30),
        cache_bytes=round(fields.positive_number("cache_mib") * 2**20),
        cache_speedup=kind.cache_speedup,
        compute_units=fields.positive_int("compute_units"),
        link_bandwidth=fields.positive_number("link_gb_s") * 1e9,
        link_latency_ns=fields.positive_int("link_latency_ns"),
        efficiencies=kind.efficiencies,
        sources={name: sources.text(name) for name in sources.names()},
        attention_kernels=kind.attention_kernels,
        fabric=fields.text("fabric", default=None),
        device_class=kind.name,
        power_w=fields.positive_number("power_w", high=MOST_WATTS) if fields.has("power_w") else None,
        aiconfigurator_system=fields.text("aiconfigurator_system", default=None),
    )
    known = fields.has(unit) and fields.sound(unit)
    if known and hardware.driver_memory_bytes > MOST_SHOWN * hardware.memory_bytes:
        fields.problem(f"more than the device has ({unit})", "driver_memory_gib")
    return hardware


def plain_name(name: str) -> str:
    """Return `name` as it is compared: letters and digits only, without case."""
    return "".join(character for character in name.casefold() if character.isalnum())
