"""What the rules find in blocks that are not pre-norm, and in models whose ends are not plain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trace_gen.architecture import BlockForm, LayerRun
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.precision import Precision
from trace_gen.trace import CommType, Trace
from trace_gen.vocabulary import FUSED
from trace_test.random_batches import _WorkModel
from trace_test.rule import Findings, ModelFacts, run_rules
from trace_test.subjects import of_trace

BATCH = BatchShape(np.array([3]), np.array([2]), np.array([7]), np.array([1]))


def made(name: str, ranks: int = 1) -> tuple[Trace, ModelFacts]:
    generator = TraceGenerator(load_model(name), Mesh(ranks), _WorkModel(FUSED, "batch"))
    facts = ModelFacts(generator.architecture, generator.mesh, Precision(), (BATCH,))
    return generator.generate([BATCH]), facts


def found(trace: Trace, facts: ModelFacts) -> Findings:
    return run_rules(of_trace("made", trace, facts)).violations


def rows_of(trace: Trace, name: str) -> list[int]:
    return [row for row in range(trace.rows) if trace.name(row) == name]


def with_value(trace: Trace, column: str, row: int, value: int) -> Trace:
    copy = getattr(trace, column).copy()
    copy[row] = value
    return replace(trace, **{column: copy})


def without_collective(trace: Trace, row: int) -> Trace:
    return with_value(with_value(trace, "comm_type", row, CommType.NONE), "comm_bytes", row, 0)


@pytest.mark.parametrize("name", ["tiiuae/falcon-7b", "tiiuae/falcon-40b"])
def test_both_halves_lose_their_sum_with_the_one_reduction(name: str) -> None:
    trace, facts = made(name, 4)
    assert found(trace, facts) == {}
    violations = found(without_collective(trace, rows_of(trace, "fc2")[1]), facts)["collectives-placed"]
    assert [violation.where.partition("(")[2] for violation in violations] == ["L1.o_proj)", "L1.fc2)"]
    assert violations[0].what == "its output is a partial sum on every rank, but no collective follows"


def test_a_norm_needs_the_whole_sum() -> None:
    """A later reduction does not serve what a norm takes before it."""
    trace, facts = made("tiiuae/falcon-rw-1b", 4)
    assert found(trace, facts) == {}
    (violation,) = found(without_collective(trace, rows_of(trace, "o_proj")[0]), facts)["collectives-placed"]
    assert violation.where.endswith("(L0.o_proj)")
    parallel, facts = made("tiiuae/falcon-40b", 4)
    between = with_value(
        parallel, "op", rows_of(parallel, "fc1")[0], int(parallel.op[rows_of(parallel, "layernorm")[0]])
    )
    where = [violation.where for violation in found(between, facts)["collectives-placed"]]
    assert len(where) == 1 and where[0].endswith("(L0.o_proj)")


def test_a_reduction_in_another_block_is_none() -> None:
    trace, facts = made("tiiuae/falcon-7b", 2)
    alone = trace
    for row in (*rows_of(trace, "fc2")[:1], *rows_of(trace, "fc1")[1:2]):
        alone = without_collective(alone, row)
    places = [violation.where.partition("(")[2] for violation in found(alone, facts)["collectives-placed"]]
    assert places == ["L0.o_proj)", "L0.fc2)"]


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("meta-llama/Llama-3.2-1B", 2),
        ("facebook/opt-350m", 2),
        ("google/gemma-2-2b", 4),
        ("microsoft/phi-2", 1),
        ("EleutherAI/pythia-160m", 2),
    ],
)
def test_a_block_has_the_norms_of_its_form(name: str, norms: int) -> None:
    trace, facts = made(name)
    assert found(trace, facts) == {}
    for form in BlockForm:
        expected = {"pre-norm": 2, "post-norm": 2, "sandwich": 4, "parallel": 1, "parallel, two norms": 2}[form.value]
        runs = tuple(LayerRun(replace(run.layer, form=form), run.repeats) for run in facts.architecture.runs)
        other = replace(facts, architecture=replace(facts.architecture, runs=runs))
        said = [violation.what for violation in found(trace, other).get("blocks-complete", [])]
        wrong = f"it has {norms} norms, but a {form.value} block has {expected}"
        assert said == ([] if norms == expected else [wrong] * len(facts.architecture.layer_kinds))


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("facebook/opt-350m", "project_in", "weight_bytes"),
        ("facebook/opt-350m", "project_in", "input_bytes"),
        ("facebook/opt-350m", "position_embedding", "weight_bytes"),
        ("facebook/opt-350m", "project_out", "output_bytes"),
        ("facebook/opt-350m", "embedding", "output_bytes"),
        ("microsoft/phi-2", "lm_head", "weight_bytes"),
        ("google/gemma-2-2b", "embedding_scale", "input_bytes"),
        ("google/gemma-2-2b", "logit_softcap", "input_bytes"),
        ("google/gemma-2-2b", "logit_softcap", "output_bytes"),
    ],
)
def test_sizes_of_ends_that_are_not_plain(name: str, row: str, column: str) -> None:
    trace, facts = made(name, 2)
    assert found(trace, facts) == {}
    place = rows_of(trace, row)[0]
    wrong = with_value(trace, column, place, 2 * int(getattr(trace, column)[place]))
    assert any(violation.where.endswith(f"({row})") for violation in found(wrong, facts)["model-shape"])


def test_a_biased_head_is_counted_once() -> None:
    """Its bytes are in the sum of a stage's weights, tied or not, whether logits are needed or not."""
    facts = made("microsoft/phi-2", 2)[1]
    for tied in (False, True):
        architecture = replace(facts.architecture, tie_word_embeddings=tied)
        for samples in (0, 1):
            batch = replace(BATCH, samples=np.array([samples]))
            trace = TraceGenerator(architecture, facts.mesh, _WorkModel(FUSED, "batch")).generate([batch])
            own = replace(facts, architecture=architecture, batches=(batch,))
            assert found(trace, own) == {}
