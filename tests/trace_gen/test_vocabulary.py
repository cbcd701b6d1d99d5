"""Names of operators as data: a vocabulary of the test's own changes names, joins projections and drops rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import FAMILIES, LLAMA, batch, generator, model, rows_named

from foundation.errors import InternalError
from trace_gen.generator import TraceGenerator
from trace_gen.mesh import Mesh
from trace_gen.trace import OperatorClass, RowKind, Trace
from trace_gen.vocabulary import FUSED, ROLES, SPLIT, Vocabulary, class_of
from trace_test.random_batches import _WorkModel

OWN = Vocabulary(
    "own",
    {"q_proj": "query", "k_proj": "kv", "v_proj": "kv", "gate_proj": "up", "up_proj": "up", "attention": "flash"},
    absent=frozenset({"sampler"}),
)


def traced(vocabulary: Vocabulary, granularity: str = "batch") -> Trace:
    model_of_work = _WorkModel(vocabulary, granularity)  # type: ignore[arg-type]
    return TraceGenerator(model(), Mesh(2), model_of_work).generate([batch([3, 1], [0, 9])])


def test_roles_that_share_a_name_are_one_operator() -> None:
    trace = traced(OWN)
    names = [trace.name(row) for row in range(1, 11)]
    assert names[:6] == ["attention_norm", "query", "kv", "rotary", "flash", "o_proj"]
    assert names[6:] == ["mlp_norm", "up", "act_fn", "down_proj"]
    assert [trace.name(row) for row in range(trace.rows - 2, trace.rows)] == ["final_norm", "lm_head"]
    (query,), (kv,), (up,) = (rows_named(trace, name)[:1] for name in ("query", "kv", "up"))
    assert trace.weight_bytes[query] == 2 * 4096 * 2048
    assert trace.weight_bytes[kv] == 2 * 4096 * 1024
    assert trace.weight_bytes[up] == 2 * 4096 * 14336


def test_all_vocabularies_have_the_same_work() -> None:
    totals = {words.name: int(traced(words).flops[:, :-2].sum()) for words in (FUSED, SPLIT, OWN)}
    by_name = {words.name: traced(words) for words in (FUSED, SPLIT, OWN)}
    layers = {name: int(trace.flops[0, trace.layer >= 0].sum()) for name, trace in by_name.items()}
    assert len(set(layers.values())) == 1, totals
    weights = {int(trace.weight_bytes.sum()) for trace in by_name.values()}
    assert len(weights) == 1


def test_rows_for_each_request_are_those_a_vocabulary_names() -> None:
    split, own = traced(SPLIT, "request"), traced(OWN, "request")
    assert len(rows_named(split, "rope")) == len(rows_named(split, "attn")) == 64
    assert len(rows_named(own, "flash")) == 64 and len(rows_named(own, "rotary")) == 32


def test_roles_that_do_not_exist() -> None:
    for wrong in ({"names": {"qproj": "q"}}, {"absent": frozenset({"qproj"})}, {"per_request": frozenset({"qproj"})}):
        with pytest.raises(InternalError, match="the vocabulary mine names roles that do not exist: qproj"):
            Vocabulary("mine", **wrong)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(name=st.sampled_from(FAMILIES), tensor=st.sampled_from([1, 4]), words=st.sampled_from([FUSED, SPLIT]))
def test_every_row_has_the_class_that_its_name_says(name: str, tensor: int, words: Vocabulary) -> None:
    """What the generator knows and what a reader of texts concludes from the name are the same."""
    mixture = model(name).mixtures
    mesh = Mesh(tensor, expert=tensor if mixture and tensor > 1 else 1)
    made = TraceGenerator(model(name), mesh, _WorkModel(words, "batch"))
    trace = made.generate([batch([5, 1], [0, 3])])
    for row in range(trace.rows):
        assert trace.operator_class[row] == class_of(trace.name(row), int(trace.kind[row])), trace.name(row)


def test_classes_of_names() -> None:
    assert class_of("qkv_proj", RowKind.COMPUTE) is OperatorClass.GEMM
    assert class_of("softmax", RowKind.COMPUTE) is class_of("attn", RowKind.COMPUTE) is OperatorClass.ATTENTION
    assert class_of("expert_down_proj", RowKind.COMPUTE) is OperatorClass.GROUPED_GEMM
    assert class_of("expert_sum", RowKind.COMPUTE) is OperatorClass.ELEMENTWISE
    assert class_of("kv_load", RowKind.MEM_LOAD) is class_of("x", RowKind.MEM_STORE) is OperatorClass.MEMORY
    assert class_of("attention", RowKind.COMM) is OperatorClass.COMMUNICATION
    assert class_of("something", RowKind.COMPUTE) is OperatorClass.OTHER
    assert set(ROLES.values()) == set(OperatorClass) - {OperatorClass.MEMORY, OperatorClass.OTHER}


def test_one_device_computes() -> None:
    trace = generator(LLAMA).generate([batch([3])])
    assert trace.devices == ("npu",) and not trace.device.any() and len(trace.device) == trace.rows
