"""The worked example of docs/change_the_trace_generator.md does what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from trace_gen.models import load_model
from trace_gen.operators import Operators
from trace_gen.parallelism import Parallelism
from trace_gen.sharding import Precision
from trace_test.random_batches import _WorkModel
from trace_test.rule import ModelFacts, Outcome, run_rules
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


def check(architecture: ModelArchitecture, tensor: int, pipeline: int, known: bool = True) -> Outcome:
    parallelism = Parallelism(tensor, pipeline)
    generator = TraceGenerator(architecture, parallelism, _WorkModel("fused", "batch"))
    facts = ModelFacts(architecture, parallelism, Precision(), BATCH)
    return run_rules(of_trace("gemma", generator.generate(BATCH), facts if known else None))


def with_scale(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Put the page's operator where the page puts it."""
    scope: dict[str, Any] = dict(vars(trace_gen.model_operators))
    exec(compile(source, "model_operators.py", "exec"), scope)
    make = trace_gen.model_operators.model_operators

    def scaled(model: ModelArchitecture, tensor: int, precision: Precision, *more: Any, **named: Any) -> Operators:
        operators = make(model, tensor, precision, *more, **named)
        scale = scope["embedding_scale"](model, precision)
        return Operators((*operators.head, scale), operators.block, operators.tail)

    monkeypatch.setattr(trace_gen.generator, "model_operators", scaled)


def test_the_family_alone_makes_correct_traces(gemma: ModelArchitecture) -> None:
    assert (gemma.head_dim, gemma.tie_word_embeddings) == (256, True)
    assert round(gemma.parameters / 1e9, 2) == 2.51, "Google's own count of Gemma 2B"
    for tensor, pipeline in ((1, 1), (2, 1), (4, 3)):
        assert check(gemma, tensor, pipeline).violations == {}


def test_the_operator_fits(gemma: ModelArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    with_scale(monkeypatch, OPERATOR)
    for tensor, pipeline in ((1, 1), (2, 1), (4, 3)):
        assert check(gemma, tensor, pipeline).violations == {}


def test_the_mistake_is_reported_as_the_page_says(gemma: ModelArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = OPERATOR.replace("model.hidden_size, model.hidden_size", "model.hidden_size // 2, model.hidden_size // 2")
    assert wrong != OPERATOR
    with_scale(monkeypatch, wrong)
    violations = check(gemma, 2, 1).violations
    assert list(violations) == ["input-matches-output"]
    for found in violations["input-matches-output"]:
        assert f"{found.where}: input-matches-output: {found.what}\n" in PAGE
