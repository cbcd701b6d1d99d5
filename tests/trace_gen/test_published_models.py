"""Every shipped model against what is published of it: parameters, bytes of weights and of KV cache, FLOPs a token."""

from __future__ import annotations

import numpy as np
import pytest
from published import CHECKPOINT_BYTES, NON_EMBEDDING, PUBLISHED, SAME_SHAPE, Published
from test_published_mixtures import MODELS
from trace_cases import batch, make_generator, model

from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.models import shipped_models
from trace_gen.trace import OperatorClass

NAMES = sorted(PUBLISHED)


def test_every_shipped_model_has_its_row() -> None:
    mixtures = {one.name for one in MODELS}
    assert set(shipped_models()) == PUBLISHED.keys() | SAME_SHAPE.keys() | mixtures
    assert not PUBLISHED.keys() & SAME_SHAPE.keys()
    assert CHECKPOINT_BYTES.keys() | NON_EMBEDDING.keys() <= PUBLISHED.keys()


@pytest.mark.parametrize("name", sorted(SAME_SHAPE))
def test_a_tuned_model_has_the_shape_of_its_base(name: str) -> None:
    own, base = model(name), model(SAME_SHAPE[name])
    assert (own.runs, own.hidden_size, own.vocab_size) == (base.runs, base.hidden_size, base.vocab_size)


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    row = PUBLISHED[name]
    assert parameter_count(model(name)) == pytest.approx(row.parameters, rel=row.within, abs=0)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_one_rank_are_the_checkpoint(name: str) -> None:
    """16 bits a number; a checkpoint's own size where that is published."""
    row, memory = PUBLISHED[name], ModelMemory(model(name), Mesh())
    if model(name).quantization is None:
        assert memory.weight_bytes(0) == pytest.approx(2 * row.parameters, rel=row.within, abs=0)
    if name in CHECKPOINT_BYTES:
        assert memory.weight_bytes(0) == CHECKPOINT_BYTES[name]


@pytest.mark.parametrize("name", NAMES)
def test_kv_cache_of_a_token(name: str) -> None:
    """Keys and values of every layer, 16 bits a number."""
    layers, heads, width = PUBLISHED[name].kv
    assert ModelMemory(model(name), Mesh()).kv_bytes_per_token(0) == 2 * layers * heads * width * 2


def matrix_flops(name: str) -> int:
    """FLOPs of all matrices for one token whose logits are needed."""
    trace = make_generator(model(name)).generate([batch([1], [100])])
    matrices = np.isin(trace.operator_class, (OperatorClass.GEMM, OperatorClass.GROUPED_GEMM))
    return int(trace.flops[0, matrices].sum())


def met(row: Published) -> tuple[float, float]:
    """Return the parameters that a token is multiplied with, and the error of that number.

    All but tables that are looked up; norms and biases, which take one operation or five, are a few in a thousand.
    """
    if row.active is not None:
        active, error = row.active
        return active - row.looked_up, error * active / (active - row.looked_up)
    return row.parameters - row.looked_up, max(row.within, 0.003)


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_a_token(name: str) -> None:
    """2 a parameter that the token is multiplied with."""
    parameters, error = met(PUBLISHED[name])
    assert matrix_flops(name) == pytest.approx(2 * parameters, rel=error)


@pytest.mark.parametrize("name", sorted(NON_EMBEDDING))
def test_parameters_without_embeddings(name: str) -> None:
    published, error = NON_EMBEDDING[name]
    shape = model(name)
    tables = (1 if shape.tie_word_embeddings else 2) * shape.vocab_size * shape.hidden_size
    assert parameter_count(shape) - tables == pytest.approx(published, rel=0, abs=error)
