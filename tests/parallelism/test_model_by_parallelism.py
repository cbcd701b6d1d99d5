"""Every model on every parallelism: one batch is simulated and its cost compared with what the papers say.

A cell of the table in docs/parallelism.md is a case here. This file and what the papers say (`parallelism.papers`,
`parallelism.published`) import nothing of the trace generator.
"""

from __future__ import annotations

import pytest
from parallelism.deployment import count
from parallelism.papers import Degrees, Work, costs
from parallelism.published import MODELS

BATCH = (Work(0, 700), Work(512, 250, samples=0), Work(900, 1), Work(33, 1), *(Work(100 * i, 1) for i in range(1, 9)))
"""A prompt, a chunk of one, and decodes: 960 tokens, which 32 ranks divide."""
ANOTHER = (Work(2000, 1), Work(0, 951), *(Work(40 * i, 1) for i in range(1, 9)))
"""As many tokens for another member, on other contexts."""
PARALLELISMS = {
    "1": Degrees(),
    "TP 4": Degrees(tensor=4),
    "TP 8": Degrees(tensor=8),
    "PP 4": Degrees(pipeline=4),
    "TP 2 x PP 3": Degrees(tensor=2, pipeline=3),
    "TP 4, norms by token": Degrees(tensor=4, scattered=True),
    "CP 2, ring": Degrees(context=2),
    "CP 4, gathered": Degrees(context=4, ring=False),
    "TP 2 x CP 3 x PP 2": Degrees(tensor=2, context=3, pipeline=2),
    "TP 4, EP 4": Degrees(tensor=4, expert=4),
    "DP 4, EP 4": Degrees(data=4, expert=4),
    "DP 2 x TP 2, EP 4": Degrees(tensor=2, data=2, expert=4),
    "DP 2 x TP 2 x PP 2, EP 4": Degrees(tensor=2, data=2, pipeline=2, expert=4),
    "TP 2 x CP 2, EP 4": Degrees(tensor=2, context=2, expert=4),
    "TP 4, EP 4, norms by token": Degrees(tensor=4, expert=4, scattered=True),
}
CELLS = [
    (name, parallelism)
    for name, model in MODELS.items()
    for parallelism, degrees in PARALLELISMS.items()
    if degrees.expert == 1 or model.mixtures
]


@pytest.mark.parametrize(("name", "parallelism"), CELLS)
def test_a_batch_costs_what_the_papers_say(name: str, parallelism: str) -> None:
    degrees = PARALLELISMS[parallelism]
    members = [BATCH if member % 2 == 0 else ANOTHER for member in range(degrees.data)]
    expected, found = costs(MODELS[name], members, degrees), count(name, members, degrees)
    assert found.gemm == expected.gemm
    assert found.grouped == expected.grouped
    assert found.attention == expected.attention
    assert found.weights == expected.weights
    assert found.messages == expected.messages
    assert found.sends == expected.sends
    assert found.violations == {}
    assert all(finish >= busy > 0 for finish, busy in zip(found.finish_ns, found.compute_ns, strict=True))
    if degrees == Degrees():
        assert found.finish_ns == found.compute_ns
