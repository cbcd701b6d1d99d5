"""The worked example of docs/change_the_trace_generator.md does what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trace_gen.generator
import trace_gen.memory
import trace_gen.model_operators
from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import BatchShape
from trace_gen.families import families
from trace_gen.generator import TraceGenerator
from trace_gen.memory import parameter_count
from trace_gen.mesh import Mesh
from trace_gen.model_operators import ModelOperators
from trace_gen.models import load_model
from trace_gen.operators import OperatorMaker
from trace_gen.precision import Precision
from trace_gen.vocabulary import FUSED
from trace_test.random_batches import _WorkModel
from trace_test.rule import Findings, ModelFacts, run_rules
from trace_test.subjects import of_trace

PAGE = (Path(__file__).parents[2] / "docs/change_the_trace_generator.md").read_text()
FAMILY, OPERATOR = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(CONFIG,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
PUBLISHED = 559_214_592
"""Parameters of bloom-560m, as counted from its checkpoint's tensors."""
BATCH = BatchShape(np.array([3]), np.array([1]), np.array([7]), np.array([1]))


@pytest.fixture
def bloom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelArchitecture]:
    monkeypatch.setattr(families, "_choices", dict(families._choices))
    exec(compile(FAMILY, "bloom.py", "exec"), {})
    (tmp_path / "bloom-560m.json").write_text(CONFIG)
    yield load_model(str(tmp_path / "bloom-560m.json"))


def check(architecture: ModelArchitecture, tensor: int, pipeline: int, known: bool = True) -> Findings:
    mesh = Mesh(tensor, pipeline)
    generator = TraceGenerator(architecture, mesh, _WorkModel(FUSED, "batch"))
    facts = ModelFacts(architecture, mesh, Precision(), (BATCH,))
    return run_rules(of_trace("bloom", generator.generate([BATCH]), facts if known else None))


def with_norm(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Put the page's operator where the page puts it."""
    scope = vars(trace_gen.model_operators).copy()
    exec(compile(source, "model_operators.py", "exec"), scope)
    embed = trace_gen.model_operators.model_operators

    def normed(model: ModelArchitecture, *more: Any, **named: Any) -> ModelOperators:
        operators = embed(model, *more, **named)
        make = OperatorMaker(model.hidden_size, model.norm_parameters, Precision(), FUSED)
        return replace(operators, head=(*operators.head, scope["embedding_norm"](make)))

    monkeypatch.setattr(trace_gen.generator, "model_operators", normed)
    monkeypatch.setattr(trace_gen.memory, "model_operators", normed)


def test_the_family_alone_makes_correct_traces(bloom: ModelArchitecture) -> None:
    (layer,) = bloom.layer_kinds
    assert (layer.attention.head_dim, layer.attention.rotary, bloom.tie_word_embeddings) == (64, False, True)
    assert parameter_count(bloom) == PUBLISHED - 2048
    for tensor, pipeline in ((1, 1), (2, 1), (4, 3)):
        assert check(bloom, tensor, pipeline).violations == {}


def test_the_operator_fits(bloom: ModelArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    with_norm(monkeypatch, OPERATOR)
    assert parameter_count(bloom) == PUBLISHED
    for tensor, pipeline in ((1, 1), (2, 1), (4, 3)):
        assert check(bloom, tensor, pipeline).violations == {}


def test_the_mistake_is_reported_as_the_page_says(bloom: ModelArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = OPERATOR.replace("hidden = make.hidden_size", "hidden = make.hidden_size // 2")
    assert wrong != OPERATOR
    with_norm(monkeypatch, wrong)
    violations = check(bloom, 2, 1).violations
    assert list(violations) == ["input-matches-output"]
    for found in violations["input-matches-output"]:
        assert f"{found.where}: input-matches-output: {found.what}\n" in PAGE
