"""Tokens of nobody: what is computed for them, and that attention is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trace_gen.trace_cases import LLAMA, MIXTRAL, batch, generator, rows_named
from trace_gen.batch_shape import concatenate


@pytest.mark.parametrize("name", [LLAMA, MIXTRAL])
@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("steps", [1, 5])
def test_padding_is_in_every_operator_but_attention(name: str, tensor: int, steps: int) -> None:
    made = generator(name, tensor)
    two = batch([1, 1], [70, 300], steps=steps)
    padded, plain = (made.generate([one]) for one in (replace(two, padding=3), two))
    five = made.generate([batch([1] * 5, [70, 300, 9, 9, 9], steps=steps)])
    assert padded.rows == plain.rows == five.rows
    attention = [row for row in range(padded.rows) if "attn" in padded.name(row) or "attention" in padded.name(row)]
    flops = [trace.work.flops[..., trace.work.column] for trace in (padded, plain, five)]
    compared = set()
    for row in range(padded.rows):
        of_row = [np.broadcast_to(each, (steps, *each.shape[-1:]))[:, row].tolist() for each in flops]
        if of_row[1] == of_row[2]:
            continue
        own = of_row[0] == of_row[1]
        assert own or of_row[0] == of_row[2]
        compared.add(own)
        assert not own or row in attention
    assert compared == {True, False}


def test_the_lm_head_has_the_padding_s_logits() -> None:
    made = generator(LLAMA)
    shape = replace(batch([1, 1], [5, 9]), padding=2)
    assert (shape.total_tokens, shape.sampled_tokens, shape.decode_tokens) == (4, 4, 4)
    assert shape.only(np.array([True, True])).total_tokens == 2
    assert concatenate([shape, batch([1], [3])]).padding == 2
    padded, four = (made.generate([one]) for one in (shape, batch([1] * 4, [5, 9, 1, 1])))
    for name in ("lm_head", "sampler"):
        (row,) = rows_named(padded, name)
        assert padded.input_bytes[row] == four.input_bytes[row]
