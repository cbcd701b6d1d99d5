"""Device files in LLMCompass's template: what they come to, worked out by hand; what is missing is named."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from trace_gen.device_classes import EFFICIENCY_CLASSES
from trace_gen.hardware import load_hardware
from trace_gen.precision import Arithmetic

LINK = {"bandwidth_per_direction_byte": 25e9, "bandwidth_both_directions_byte": 50e9, "latency_second": 8.92e-6,
        "flit_size_byte": 16, "header_size_byte": 16, "max_payload_size_byte": 256, "name": "a link"}  # fmt: skip
CORE = {
    "sublane_count": 4,
    "systolic_array": {"array_width": 16, "array_height": 16, "data_type": "fp16", "mac_per_cycle": 1},
    "vector_unit": {"vector_width": 32, "flop_per_cycle": 4, "data_type": "fp16", "fp32_count": 16},
    "register_file": {"num_reg_files": 1, "num_registers": 16384},
    "SRAM_KB": 192,
}
IO = {"process_node": "7nm", "global_buffer_MB": 48, "physical_global_buffer_MB": 48,
      "global_buffer_bandwidth_per_cycle_byte": 5120, "memory_channel_physical_count": 6,
      "memory_channel_active_count": 5, "pin_count_per_channel": 1024, "bandwidth_per_pin_bit": 3.2e9}  # fmt: skip
ARRAY = "device.compute_chiplet.core.systolic_array"
DEVICE: dict[str, Any] = {
    "name": "a GA100 of 128 cores",
    "device_count": 8,
    "interconnect": {"link": LINK, "link_count_per_device": 12, "topology": "FC"},
    "device": {
        "frequency_Hz": 1410e6,
        "compute_chiplet_count": 1,
        "compute_chiplet": {"physical_core_count": 128, "core_count": 128, "process_node": "7nm", "core": CORE},
        "memory_protocol": "HBM2e",
        "_memory_protocol_list": ["HBM2e", "DDR5"],
        "io": IO,
        "memory": {"total_capacity_GB": 80},
    },
}


def written(folder: Path, *changes: tuple[str, Any]) -> str:
    """Write the device with values at dotted places changed (None takes one out); return the path."""
    content = deepcopy(DEVICE)
    for place, value in changes:
        *parents, name = place.split(".")
        at = content
        for parent in parents:
            at = at[parent]
        at[name] = value
        if value is None:
            del at[name]
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_the_numbers_of_a_ga100(tmp_path: Path) -> None:
    """369.6 TFLOP/s, 2.048 TB/s of HBM, 7.2 TB/s of L2, as LLMCompass's own products come to."""
    device = load_hardware(written(tmp_path))
    assert (device.name, device.device) == ("mine", "a GA100 of 128 cores")
    assert device.peak_flops["fp16"] == pytest.approx(1.41e9 * 128 * 4 * 16 * 16 * 2) == pytest.approx(369.62304e12)
    assert device.rate(Arithmetic.HALF) == device.rate(Arithmetic.EIGHT) == device.peak_flops["fp16"]
    assert device.rate(Arithmetic.SINGLE) == pytest.approx(1.41e9 * 128 * 4 * 16 * 2)
    assert device.memory_bandwidth == 5 * 1024 * 3.2e9 / 8 == 2.048e12
    assert device.memory_bytes == device.driver_memory_bytes == 80 * 2**30
    assert device.cache_bytes == 48 * 2**20
    assert device.cache_speedup * device.memory_bandwidth == pytest.approx(5120 * 1.41e9) == pytest.approx(7.2192e12)
    assert device.compute_units == 128
    assert (device.link_bandwidth, device.link_latency_ns) == (300e9, 8920)
    assert device.efficiencies == EFFICIENCY_CLASSES


def test_every_factor_of_a_product_counts(tmp_path: Path) -> None:
    plain = load_hardware(written(tmp_path))
    for place, value in (
        ("device.compute_chiplet_count", 2),
        ("device.compute_chiplet.core_count", 256),
        ("device.frequency_Hz", 2820e6),
        ("device.compute_chiplet.core.sublane_count", 8),
        (f"{ARRAY}.array_width", 32),
        (f"{ARRAY}.array_height", 32),
        (f"{ARRAY}.mac_per_cycle", 2),
    ):
        twice = load_hardware(written(tmp_path, (place, value)))
        assert twice.peak_flops["fp16"] == pytest.approx(2 * plain.peak_flops["fp16"]), place
        units = 256 if "chiplet_count" in place or "core_count" in place else 128
        assert twice.compute_units == units, place
    for place, value in (("memory_channel_active_count", 10), ("pin_count_per_channel", 2048)):
        assert load_hardware(written(tmp_path, (f"device.io.{place}", value))).memory_bandwidth == 4.096e12
    assert load_hardware(written(tmp_path, ("interconnect.link_count_per_device", 18))).link_bandwidth == 450e9


def test_what_may_be_left_out(tmp_path: Path) -> None:
    left_out = ("name", "device_count", "interconnect.topology", "device.compute_chiplet.physical_core_count",
                "device.compute_chiplet.core.register_file", "device.compute_chiplet.core.vector_unit")  # fmt: skip
    device = load_hardware(written(tmp_path, *((name, None) for name in left_out)))
    assert device.device == "mine" and set(device.peak_flops) == {"fp16"}
    brain = load_hardware(written(tmp_path, (f"{ARRAY}.data_type", "bf16")))
    assert brain.rate(Arithmetic.HALF) == device.rate(Arithmetic.HALF) and "fp16" not in brain.peak_flops


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("device.frequency_Hz", None, "frequency_Hz is missing; give a number of at least 1"),
        ("device.io", None, "device: io is missing; give an object$"),
        ("device.compute_chiplet.core", None, "device.compute_chiplet: core is missing; give an object$"),
        ("interconnect", None, ": interconnect is missing; give an object$"),
        ("device.io.pin_count_per_channel", 0, r"io.pin_count_per_channel: 0 is not a whole number from 1 to 65536$"),
        ("device.compute_chiplet.core_count", 65537, "core_count: 65537 is not a whole number from 1 to 65536$"),
        ("interconnect.topology", "RING", "topology: only fully connected devices are read; write FC here"),
        (
            "device.compute_chiplet.core.systolic_array.data_type",
            "int8",
            'data_type: "int8" is unknown; known: bf16, fp16$',
        ),
        (f"{ARRAY}.data_type", "fp17", 'data_type: "fp17" is unknown; did you mean'),
        ("device.compute_chiplet.core.sublanes", 4, "core.sublanes: unknown field; did you mean sublane_count"),
        ("device.memory.total_capacity_GB", 1e7, "total_capacity_GB: 1[.e+0]+7?.* is not a number above 0"),
        ("interconnect.link.latency_second", 2, "latency_second: 2 is not a number above 0 and at most 1$"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, place: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_hardware(written(tmp_path, (place, value)))
    assert str(error.value).count(";") <= 1, "nothing follows from it"


def test_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    changes = (("device.frequency_Hz", -1), ("device.memory", None), ("interconnect.link.latency_second", "8 us"))
    with pytest.raises(UserError) as error:
        load_hardware(written(tmp_path, *changes))
    for named in ("device.frequency_Hz", "memory is missing", "interconnect.link.latency_second"):
        assert named in str(error.value)
