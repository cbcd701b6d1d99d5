"""The bytes of quantised matrices, each part of them worked out by hand."""

from __future__ import annotations

import pytest

from tests.converters.traces import Row, make_trace
from trace_gen.architecture import Layer, LayerRun, ModelArchitecture, NormKind, quantized
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.precision import Precision
from trace_gen.quantization import Quantization, Scheme, Stored
from trace_gen.trace import Location
from trace_test.rule import ModelFacts, Subject, rules

TOKENS, HIDDEN, WIDTH = 3, 32, 64
WEIGHTS = WIDTH * HIDDEN // 2
"""Bytes of the down projection's matrix in 4 bits."""
SCALES = 2 * HIDDEN * WIDTH // 16
"""Bytes of a 16-bit scale for every 16 inputs of each output."""


def stored(scheme: Scheme, role: str = "down_proj") -> Quantization:
    return Quantization("gptq", (Stored(frozenset({role}), scheme),))


def said(quantization: Quantization, weights: int, width: int = WIDTH, hidden: int = HIDDEN) -> list[str]:
    """What the rule says of a down projection that holds so many bytes."""
    layer = Layer(GroupedAttention(2, 2, 16), DenseMlp(width))
    architecture = ModelArchitecture("tiny", "llama", hidden, (LayerRun(layer, 1),), 100, 64, NormKind.RMS, False)
    architecture = quantized(architecture, quantization)

    def local(size: int) -> tuple[Location, int, int]:
        return Location.LOCAL, 0, size

    into, out = local(TOKENS * 2 * width), local(TOKENS * 2 * hidden)
    row = Row("down_proj", layer=0, input=into, output=out, weight=local(weights))
    subject = Subject("tiny", make_trace([row]), model=ModelFacts(architecture, Mesh(), Precision()))
    return [one.what for one in rules.get("model-shape").check(subject)]


@pytest.mark.parametrize(
    ("more", "size"),
    [
        ({}, WEIGHTS + SCALES),
        ({"zero_bits": 4}, WEIGHTS + SCALES + SCALES // 4),
        ({"index_bits": 32}, WEIGHTS + SCALES + 4 * WIDTH),
        ({"zero_bits": 4, "index_bits": 32}, WEIGHTS + SCALES + SCALES // 4 + 4 * WIDTH),
    ],
)
def test_scales_zero_points_and_indices_count(more: dict[str, int], size: int) -> None:
    quantization = stored(Scheme(4, (16, 1), **more))  # type: ignore[arg-type]
    assert said(quantization, size) == []
    for wrong in (size - 1, size + 1, size - 4 * WIDTH, size + 4 * HIDDEN):
        assert said(quantization, wrong) == [f"its weights are {wrong} bytes, but the model has {size}"]


def test_a_matrix_that_is_left_out_has_no_scales() -> None:
    quantization = stored(Scheme(4, (16, 1), index_bits=32), "gate_proj")
    assert said(quantization, 2 * WIDTH * HIDDEN) == []
    assert len(said(quantization, WEIGHTS + SCALES + 4 * WIDTH)) == 1


def test_parts_that_fill_no_byte_are_rounded_up_each() -> None:
    """4 bits for each of 65 x 33 weights, and 20 for each of 33 scales with their zero points."""
    quantization = stored(Scheme(4, (None, 1), zero_bits=4))
    assert said(quantization, 1073 + 83, width=65, hidden=33) == []
