"""One shipped model of every family, cut to a few layers, on every sort of parallelism: trace_test's rules hold."""

from __future__ import annotations

import pytest
from trace_cases import batch, make_generator, model, with_layers

from foundation.documents import read_json
from trace_gen.architecture import ModelArchitecture
from trace_gen.families import families
from trace_gen.models import shipped_models
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

MIXED = batch([40, 1, 9, 1], [0, 300, 64, 7], [1, 1, 0, 1])
"""A prompt, decodes, and a chunk of a prompt that goes on."""
PARALLEL = {
    "norms by token": {"tensor": 4, "sequence_parallel": True},
    "a ring": {"tensor": 2, "context": 2},
    "gathered, norms by token": {"tensor": 2, "context": 3, "context_mode": "allgather", "sequence_parallel": True},
    "stages": {"tensor": 2, "pipeline": 2},
}


def one_of_each() -> dict[str, str]:
    """Return a shipped model of each family that has one."""
    found: dict[str, str] = {}
    for name, path in shipped_models().items():
        found.setdefault(read_json(path, "model").value["model_type"], name)
    return found


FAMILIES = one_of_each()


def few_layers(name: str) -> ModelArchitecture:
    """Keep a layer of each kind, and as many as there are stages."""
    architecture = model(name)
    kinds = architecture.layer_kinds
    return with_layers(architecture, *(kinds * 2)[: max(2, len(kinds))])


def test_there_is_a_model_of_every_family() -> None:
    assert set(families) - FAMILIES.keys() <= {"llama4_text", "gemma3_text"}, "these stand inside another"


@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("way", PARALLEL)
def test_rules_hold(name: str, way: str) -> None:
    generator = make_generator(few_layers(name), hardware="H200", **PARALLEL[way])  # type: ignore[arg-type]
    trace = generator.generate([MIXED])
    facts = ModelFacts(generator.architecture, generator.mesh, generator.precision, (MIXED,))
    assert run_rules(of_trace(name, trace, facts)).violations == {}
