"""Every model on every parallelism: one batch is simulated and its cost compared with what the papers say.

A cell of the table in docs/parallelism.md is a case here, and the other way round. This file and what the papers say
(`parallelism.papers`, `parallelism.published`) import nothing of the trace generator.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

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
PAGE = Path(__file__).parents[2] / "docs" / "parallelism.md"
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


def test_the_page_has_every_cell() -> None:
    """Models stand in rows, parallelisms in columns; a dash is what cannot be: whole experts of a dense model."""
    page = PAGE.read_text().splitlines()
    head = next(at for at, line in enumerate(page) if line.startswith("| model |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(is_row, page[head:])]
    columns = rows[0][1:]
    assert columns == list(PARALLELISMS)
    cells = [(row[0], column, cell) for row in rows[2:] for column, cell in zip(columns, row[1:], strict=True)]
    assert [(name, column) for name, column, cell in cells if cell == "yes"] == CELLS
    assert {cell for *_, cell in cells} == {"yes", "-"}


def is_row(line: str) -> bool:
    return line.startswith("|")
