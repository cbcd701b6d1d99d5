"""Hardware files: every number has a source, spelling is tolerant, wrong files are explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foundation.errors import UserError
from trace_gen.device_classes import CLASS_FOLDER, EFFICIENCY_CLASSES, read_device_class
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
from trace_gen.precision import Arithmetic, Precision

SHIPPED = sorted(path.stem for path in HARDWARE_FOLDER.glob("*.json"))
EXPECTED = {"RTX3090", "RTX4090", "RTXPRO6000", "A40", "A6000", "A100-40G", "A100-80G", "H100", "H200", "B200", "L40S"}


def test_the_promised_devices_ship() -> None:
    assert {*EXPECTED, "MI300X", "TPU-v5e", "TPU-v6e"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_has_a_source(name: str) -> None:
    content = json.loads((HARDWARE_FOLDER / f"{name}.json").read_text())
    sources = set(content["sources"])
    for field in content:
        if field in {"name", "device", "aliases", "sources"}:
            continue
        assert {field, field.removesuffix("_gb").removesuffix("_gib")} & sources, field
    hardware = load_hardware(name)
    assert hardware.name == name
    ridge = hardware.rate(Arithmetic.HALF) / hardware.memory_bandwidth
    assert 50 < ridge < 1000, "FLOPs a byte at the ridge"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("rtx 3090", "RTX3090"), ("RTX-PRO-6000", "RTXPRO6000"), ("a100", "A100-80G"), ("tpu_v6e", "TPU-v6e")],
)
def test_spelling(spelling: str, name: str) -> None:
    assert load_hardware(spelling).name == name


def test_no_two_devices_share_a_name() -> None:
    spellings: dict[str, str] = {}
    for name in SHIPPED:
        content = json.loads((HARDWARE_FOLDER / f"{name}.json").read_text())
        for spelling in (name, *content.get("aliases", [])):
            assert spellings.setdefault(spelling.casefold(), name) == name


def test_unknown_hardware() -> None:
    with pytest.raises(UserError, match=r"unknown hardware 'RTX3091'.*RTX3090"):
        load_hardware("RTX3091")


def test_narrow_formats_fall_back() -> None:
    assert load_hardware("A100").rate(Arithmetic.EIGHT) == load_hardware("A100").rate(Arithmetic.INT8) == 624e12
    assert load_hardware("A100").rate(Arithmetic.FP8) == 312e12, "no fp8 units: 16 bits"
    assert load_hardware("H100").rate(Arithmetic.of(4)) == load_hardware("H100").peak_flops["fp8"]
    with pytest.raises(
        UserError, match=r"TPU-v5e states no rate for 32-bit numbers; use fewer bits or other hardware$"
    ):
        load_hardware("TPU-v5e").rate(Arithmetic.SINGLE)


def test_all_wrong_fields_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    content = json.loads((HARDWARE_FOLDER / "RTX3090.json").read_text())
    content |= {"memory_bandwidth_gb_s": 0, "compute_units": "82", "bandwith": 1, "peak_tflops": {"fp12": 3}}
    content["efficiency"] = {"gemm": {"compute": -1}, "gem": {}}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        load_hardware(str(path))
    near = "did you mean memory_bandwidth_gb_s?"
    for part in ("memory_bandwidth_gb_s: 0 is", 'compute_units: "82" is', f"bandwith: unknown field; {near}", "fp12"):
        assert part in str(error.value)
    for part in ("efficiency.gemm.compute: -1 is", "efficiency.gem: unknown field", "neither bf16 nor fp16"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_gb": 24, "memory_gib": 24}, "memory_gib: memory_gb and memory_gib are both given; leave out all but"),
        ({"memory_gb": None, "memory_gib": None}, "memory_gb or memory_gib is missing$"),
        ({"efficiency": {"gemm": {"compute": 7}}}, "efficiency.gemm.compute: 7 is not a number above 0 and at most 2$"),
        ({"efficiency": {"embedding": {"memory": 2.01}}}, "efficiency.embedding.memory: 2.01 is not a number above 0"),
        ({"driver_memory_gib": 26.5}, "driver_memory_gib: more than the device has"),
        ({"peak_tflops": {"fp8": 3}}, "peak_tflops: neither bf16 nor fp16 is given$"),
        (
            {"memory_bandwidth_gb_s": 1e300},
            "memory_bandwidth_gb_s: 1e[+]?300 is not a number above 0 and at most 1e[+]15$",
        ),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    content = json.loads((HARDWARE_FOLDER / "RTX3090.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**content, **changes}))
    with pytest.raises(UserError, match=message):
        load_hardware(str(path))


def test_the_limits_of_an_efficiency(tmp_path: Path) -> None:
    content = json.loads((HARDWARE_FOLDER / "RTX3090.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({**content, "efficiency": {"gemm": {"compute": 2, "memory": 0.001, "overhead_ns": 5200}}})
    )
    gemm = load_hardware(str(path)).efficiencies["gemm"]
    assert (gemm.compute, gemm.memory, gemm.overhead_ns, gemm.tile_ns) == (2.0, 0.001, 5200.0, 0.0)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "/dev/null", "RTX\x1b[31m"])
def test_names_that_are_nothing(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown hardware|it is a device") as error:
        load_hardware(name)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_users_own_file(tmp_path: Path) -> None:
    content = json.loads((HARDWARE_FOLDER / "RTX3090.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**content, "name": "mine", "efficiency": {"gemm": {"memory": 0.5}}}))
    mine = load_hardware(str(path))
    assert (mine.name, mine.efficiencies["gemm"].memory) == ("mine", 0.5)
    assert mine.memory_bytes == 24 * 2**30
    assert load_hardware(str(path.rename(tmp_path / "mine.device"))) == mine, "whatever the file is called"
    with pytest.raises(UserError, match=r"mine\.json: the hardware configuration does not exist; check the path$"):
        load_hardware(str(path))


def test_numbers_are_multiplied_as_the_wider_of_them() -> None:
    for weights, activations, wanted in ((4, 16, 16), (16, 4, 16), (8, 8, 8), (32, 16, 32), (4, 8, 8)):
        assert Precision(weights, activations).arithmetic is Arithmetic.of(wanted)


CLASSES = sorted(path.stem for path in CLASS_FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_of_a_class_has_a_source(name: str) -> None:
    content = json.loads((CLASS_FOLDER / f"{name}.json").read_text())
    told = {*content["sources"], "sources"}
    assert set(content) - told <= {"efficiency"}
    assert "efficiency" in told or set(content.get("efficiency", {})) <= told
    assert read_device_class(CLASS_FOLDER / f"{name}.json").name == name


def test_every_class_has_a_device() -> None:
    assert {load_hardware(name).device_class for name in SHIPPED} - {None} == {*CLASSES}


def test_a_device_goes_before_its_class_and_its_class_before_the_defaults(tmp_path: Path) -> None:
    content = json.loads((HARDWARE_FOLDER / "H100.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**content, "efficiency": {"gemm": {"compute": 0.125}}}))
    mine, kind = load_hardware(str(path)), read_device_class(CLASS_FOLDER / "hopper.json")
    assert mine.efficiencies["gemm"] == replace(kind.efficiencies["gemm"], compute=0.125)
    assert mine.efficiencies["sampler"] == kind.efficiencies["sampler"]
    assert mine.attention_kernels == kind.attention_kernels == "fa3"
    content.pop("class"), content.pop("attention_kernels", None), content.pop("efficiency", None)
    path.write_text(json.dumps(content))
    bare = load_hardware(str(path))
    assert (bare.efficiencies, bare.attention_kernels, bare.device_class) == (EFFICIENCY_CLASSES, "fa2", None)
    path.write_text(json.dumps({**content, "class": "hoper"}))
    with pytest.raises(UserError, match=r'class: "hoper" is unknown; did you mean hopper'):
        load_hardware(str(path))
