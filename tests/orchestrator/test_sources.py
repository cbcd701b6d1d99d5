"""Every number of the shipped device and node files has a source, said at its own name or at that of the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.nodes import shipped_nodes
from orchestrator.listing.devices import source_of
from trace_gen.config_root import CONFIG_ROOT
from trace_gen.device_classes import CLASS_FOLDER
from trace_gen.hardware import load_hardware, shipped_hardware

COUNTS = {"npus", "links"}
"""Of a node's parts: what the source of its link tells, too."""
SHORTEST = 12


def numbers(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from numbers(part, name if len(value) == 1 else f"{name}[{place}]")
    elif isinstance(value, int | float):
        yield name


def without_source(document: dict[str, Any]) -> list[str]:
    sources = document.get("sources", {})
    found = numbers({key: part for key, part in document.items() if key != "sources"})
    lacking = []
    for name in found:
        whole, _, part = name.rpartition(".")
        asked = f"{whole}.link_gb_s" if part in COUNTS else name
        if len(source_of(asked, sources) or "") < SHORTEST:
            lacking.append(name)
    return lacking


def every_file() -> list[Path]:
    return [*shipped_hardware().values(), *shipped_nodes().values(), *sorted(CLASS_FOLDER.glob("*.json"))]


@pytest.mark.parametrize("path", every_file(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_number_has_a_source(path: Path) -> None:
    document = json.loads(path.read_text())
    assert list(numbers(document)) or path.parent == CLASS_FOLDER, "there are numbers"
    assert without_source(document) == []


@pytest.mark.parametrize("field", ["peak_tflops", "memory_bandwidth_gb_s", "power_w", "link_gb_s", "compute_units"])
def test_a_number_without_its_source_is_found(field: str) -> None:
    document = json.loads((CONFIG_ROOT / "hardware/H200.json").read_text())
    del document["sources"][field]
    assert without_source(document), field


def test_a_nodes_number_without_its_source_is_found() -> None:
    document = json.loads((CONFIG_ROOT / "nodes/h100-nvl-8.json").read_text())
    del document["sources"]["dimensions[1].link_gb_s"]
    assert without_source(document) == ["dimensions[1].npus", "dimensions[1].link_gb_s"]


@pytest.mark.parametrize("name", sorted(shipped_hardware()))
def test_power_is_its_makers_or_said_to_be_unpublished(name: str) -> None:
    device = load_hardware(name)
    assert (device.power_w is None) == device.sources["power_w"].startswith("left out: ")
    assert device.power_w is None or 50 <= device.power_w <= 2000
