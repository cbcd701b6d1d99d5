"""LLMCompass's device template, which ReaLLM reads as well: a device as its cores, channels and links.

    peak     frequency x chiplets x cores x sublanes x array width x array height x MACs a cycle x 2 FLOP/s
    fp32     frequency x chiplets x cores x sublanes x fp32 units x 2 (a fused multiply-add a cycle)
    memory   active channels x pins a channel x bits a second and pin / 8 bytes/s; capacity x 2^30 bytes
    cache    global buffer x 2^20 bytes, at its bytes a cycle x frequency
    link     bytes a second and direction of one link x links of the device; its latency

Source of the fields and of what they mean: LLMCompass (Zhang et al., "LLMCompass: Enabling Efficient Hardware Design
for Large Language Model Inference", ISCA 2024), `template_to_system` of its design-space exploration. Efficiencies are
no part of a template: they are the defaults of our roofline. What only its own simulator and cost model use (vector and
register widths, SRAM of a core, process nodes, physical counts, sizes of flits) is known by name and not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundation.fields import Fields
from trace_gen.device_classes import EFFICIENCY_CLASSES
from trace_gen.hardware import Hardware
from trace_gen.hardware_formats import HardwareFormat, hardware_formats

_FULLY_CONNECTED = "FC"
_HALF = ("fp16", "bf16")
"""What an array may multiply: a device without a rate for 16-bit numbers runs none of our models."""
_MOST_HZ = 1e12
_MOST_BITS = 1e13
_MOST_BYTES_A_CYCLE = 1e9
_MOST_GB = 1e6
_MOST_BYTES_A_SECOND = 1e15
_MOST_PARTS = 2**16
"""Of one kind in another: chiplets of a device, cores of a chiplet, rows of an array."""
_CORE = {"sublane_count", "systolic_array", "vector_unit", "register_file", "SRAM_KB"}
_VECTOR = {"vector_width", "flop_per_cycle", "data_type", "int32_count", "fp16_count", "fp32_count", "fp64_count"}
_REGISTERS = {"num_reg_files", "num_registers", "register_bitwidth", "num_rdwr_ports"}
_LINK = {"name", "bandwidth_per_direction_byte", "bandwidth_both_directions_byte", "latency_second"}
_PACKETS = {"flit_size_byte", "header_size_byte", "max_payload_size_byte"}
_CHANNELS = {"memory_channel_physical_count", "memory_channel_active_count", "pin_count_per_channel"}
_BUFFER = {"global_buffer_MB", "physical_global_buffer_MB", "global_buffer_bandwidth_per_cycle_byte"}


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether a file's top level is such a template: its `device` is made of parts, where ours is a text."""
    return (isinstance(values.get("device"), dict) and "peak_tflops" not in values) or "interconnect" in values


def read(fields: Fields, name: str) -> Hardware:
    """Return the device of a template; `device_count` is not read, for a run says how many there are."""
    _only(fields, {"name", "device_count", "interconnect", "device"})
    device = _part(fields, "device")
    _only(device, {"frequency_Hz", "compute_chiplet_count", "compute_chiplet", "memory_protocol", "io", "memory"})
    chiplet, io, memory = (_part(device, part) for part in ("compute_chiplet", "io", "memory"))
    _only(chiplet, {"physical_core_count", "core_count", "process_node", "core"})
    _only(io, {"process_node", "bandwidth_per_pin_bit"} | _CHANNELS | _BUFFER)
    _only(memory, {"total_capacity_GB"})
    frequency = device.number("frequency_Hz", low=1, high=_MOST_HZ)
    cores = _count(device, "compute_chiplet_count") * _count(chiplet, "core_count")
    pins = _count(io, "memory_channel_active_count") * _count(io, "pin_count_per_channel")
    bandwidth = pins * io.number("bandwidth_per_pin_bit", low=1, high=_MOST_BITS) / 8
    buffered = io.number("global_buffer_bandwidth_per_cycle_byte", low=1, high=_MOST_BYTES_A_CYCLE) * frequency
    capacity = round(memory.positive_number("total_capacity_GB", high=_MOST_GB) * 2**30)
    link_bandwidth, link_latency = _link(_part(fields, "interconnect"))
    return Hardware(
        name=name,
        device=fields.text("name", default=name),
        peak_flops=_rates(_part(chiplet, "core"), cores * frequency),
        memory_bandwidth=bandwidth,
        memory_bytes=capacity,
        driver_memory_bytes=capacity,
        cache_bytes=round(io.positive_number("global_buffer_MB", high=_MOST_GB) * 2**20),
        cache_speedup=buffered / bandwidth,
        compute_units=cores,
        link_bandwidth=link_bandwidth,
        link_latency_ns=link_latency,
        efficiencies=EFFICIENCY_CLASSES,
        sources={"name": "an LLMCompass template"},
    )


hardware_formats.register("llmcompass")(HardwareFormat(recognises, read))


def _rates(core: Fields, cycles: float) -> dict[str, float]:
    """Return FLOP/s by number format; `cycles` are those of all cores together a second."""
    _only(core, _CORE)
    sublanes = _count(core, "sublane_count")
    array, vector = _part(core, "systolic_array"), core.object("vector_unit")
    _only(array, {"array_width", "array_height", "data_type", "mac_per_cycle"})
    _only(vector, _VECTOR)
    _only(core.object("register_file"), _REGISTERS)
    macs = _count(array, "array_width") * _count(array, "array_height")
    macs_a_cycle = macs * array.positive_number("mac_per_cycle", high=_MOST_PARTS)
    dtype = array.choice("data_type", _HALF)
    rates = {dtype: cycles * sublanes * macs_a_cycle * 2}
    units = vector.integer("fp32_count", low=0, high=_MOST_PARTS, default=0)
    return {"fp32": cycles * sublanes * units * 2, **rates} if units else rates


def _link(interconnect: Fields) -> tuple[float, int]:
    """Return bytes/s in one direction of all links of a device together, and the latency of one (ns)."""
    _only(interconnect, {"link", "link_count_per_device", "topology"})
    link = _part(interconnect, "link")
    _only(link, _LINK | _PACKETS)
    topology = interconnect.text("topology", default=_FULLY_CONNECTED)
    if interconnect.sound("topology") and topology != _FULLY_CONNECTED:
        fix = f"write {_FULLY_CONNECTED} here, and give the network that is meant with --network"
        interconnect.problem("only fully connected devices are read", "topology", fix)
    bandwidth = link.number("bandwidth_per_direction_byte", low=1, high=_MOST_BYTES_A_SECOND)
    latency = link.positive_number("latency_second", high=1.0)
    return bandwidth * _count(interconnect, "link_count_per_device"), max(1, round(latency * 1e9))


def _part(fields: Fields, name: str) -> Fields:
    """Return the object under `name`; that it is missing is the one thing told of it."""
    if not fields.has(name):
        fields.problem(f"{name} is missing", fix="give an object")
        return Fields({}, fields.document, (*fields.place, name), [])
    return fields.object(name)


def _count(fields: Fields, name: str) -> int:
    return fields.positive_int(name, high=_MOST_PARTS)


def _only(fields: Fields, known: set[str]) -> None:
    """Report unknown fields; names with a leading underscore are the template's comments."""
    fields.only(known | {name for name in fields.names() if name.startswith("_")})
