"""The estimator's registries: every entry, and another one beside them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.fuzz.target import Target, targets
from orchestrator.estimating.formulas import Formula
from orchestrator.estimating.registries import GpuEntry, ModelEntry, PtpsEntry, Registries

_MOST_ENTRIES = 4


def _names(path: Path) -> list[str]:
    """Return the first names of a registry, which others may differ from by case alone."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ["any"]
    return list(value)[:_MOST_ENTRIES] if isinstance(value, dict) else ["any"]


def _gpus(path: Path) -> None:
    """Every GPU has a bandwidth; one that is entered is read again."""
    registry = Registries(path.parent)
    for name in _names(path):
        entry = registry.gpu(name)
        assert entry is None or Formula(1, 1, entry.bandwidth, 1).total(1, 1, 1) > 0
    registry.add_gpu("of the fuzzer", 1.5e9, "a test")
    assert registry.gpu("of the fuzzer") == GpuEntry("of the fuzzer", 1.5e9)


def _models(path: Path) -> None:
    """Every model has a token phase; one that is entered is read again."""
    registry = Registries(path.parent)
    for name in _names(path):
        entry = registry.model(name)
        assert entry is None or Formula(entry.weight_bytes, entry.kv_bytes_per_token, 1e12, 1).token_phase(2, 3, 4) > 0
    entered = ModelEntry("of the fuzzer", 10.0, 3.0, 8, 16, "config.json")
    registry.add_model(entered)
    assert registry.model("of the fuzzer") == entered


def _speeds(path: Path) -> None:
    """Every pair has a prompt phase; one that is entered is read again."""
    registry = Registries(path.parent)
    for name in _names(path):
        entry = registry.ptps(name, ["A100", "H100"])
        assert entry is None or Formula(1, 1, 1, entry.ptps).prompt_phase(1, 1) > 0
    registry.add_ptps("of the fuzzer", "A100", PtpsEntry(5.0, "a test", (1,), (0.2,)))
    assert registry.ptps("of the fuzzer", ["A100"]) == PtpsEntry(5.0, "a test")


targets.register("gpu_registry")(Target("the estimator's GPUs", _gpus, "gpu.json"))
targets.register("model_registry")(Target("the estimator's models", _models, "model.json"))
targets.register("ptps_registry")(Target("the estimator's prompt speeds", _speeds, "ptps.json"))
