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
BATCH = BatchShape(np.array([3]), np.array([1]), np.array([7]), np.array([1]))


@pytest.fixture
def gemma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelArchitecture]:
    monkeypatch.setattr(families, "_choices", dict(families._choices))
    exec(compile(FAMILY, "gemma.py", "exec"), {})
    (tmp_path / "gemma-2b.json").write_text(CONFIG)
    yield load_model(str(tmp_path / "gemma-2b.json"))


def check(architecture: ModelArchitecture, tensor: int, pipeline: int, known: bool = True) -> Findings:
    mesh = Mesh(tensor, pipeline)
    generator = TraceGenerator(architecture, mesh, _WorkModel(FUSED, "batch"))
    facts = ModelFacts(architecture, mesh, Precision(), (BATCH,))
    return run_rules(of_trace("gemma", generator.generate([BATCH]), facts if known else None))


def with_scale(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Put the page's operator where the page puts it."""
    scope = vars(trace_gen.model_operators).copy()
    exec(compile(source, "model_operators.py", "exec"), scope)
    embed = trace_gen.model_operators.model_operators

    def scaled(model: ModelArchitecture, mesh: Mesh, precision: Precision, *more: Any, **named: Any) -> ModelOperators:
        operators = embed(model, mesh, precision, *more, **named)
        make = OperatorMaker(model.hidden_size, model.norm_parameters, precision, FUSED, mesh.tensor)
        return replace(operators, head=(*operators.head, scope["embedding_scale"](make)))

    monkeypatch.setattr(trace_gen.generator, "model_operators", scaled)


def test_the_family_alone_makes_correct_traces(gemma: ModelArchitecture) -> None:
    (layer,) = gemma.layer_kinds
    assert (layer.attention.head_dim, gemma.tie_word_embeddings) == (256, True)
    assert round(parameter_count(gemma) / 1e9, 2) == 2.51, "Google's own count of Gemma 2B"
    for tensor, pipeline in ((1, 1), (2, 1), (4, 3)):
        assert check(gemma, tensor, pipeline).violations == {}


def test_the_operator_fits(gemma: ModelArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    with_scale(monkeypatch, OPERATOR)
    for tensor, pipeline in ((1, 1), (2, 1), (4, 3)):
        assert check(gemma, tensor, pipeline).violations == {}


def test_the_mistake_is_reported_as_the_page_says(gemma: ModelArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = OPERATOR.replace("make.hidden_size, make.hidden_size", "make.hidden_size // 2, make.hidden_size // 2")
    assert wrong != OPERATOR
    with_scale(monkeypatch, wrong)
    violations = check(gemma, 2, 1).violations
    assert list(violations) == ["input-matches-output"]
    for found in violations["input-matches-output"]:
        assert f"{found.where}: input-matches-output: {found.what}\n" in PAGE
