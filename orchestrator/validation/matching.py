"""Which simulated request is which recorded one: by place in the workload, and by lengths where places say nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.validation.recording import Recording

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows of two recordings that are the same request, ``[m]`` each; `notes`: what does not match."""

    simulated: IntArray
    recorded: IntArray
    notes: Sequence[str] = ()


def match(simulated: Recording, recorded: Recording) -> Pairs:
    """Return the requests that are in both. A `UserError` where the workloads are different ones."""
    _, ours, theirs = np.intersect1d(simulated.position, recorded.position, assume_unique=True, return_indices=True)
    pairs = Pairs(ours, theirs)
    if not _mostly_alike(simulated, recorded, pairs):
        pairs = _by_lengths(simulated, recorded)
    if not _mostly_alike(simulated, recorded, pairs):
        what = f"its {len(recorded)} requests are not the {len(simulated)} of {simulated.path}: most differ in length"
        raise UserError(what, path=recorded.path, fix="simulate the workload that was recorded")
    return Pairs(pairs.simulated, pairs.recorded, tuple(_notes(simulated, recorded, pairs)))


def _mostly_alike(simulated: Recording, recorded: Recording, pairs: Pairs) -> bool:
    """Whether there are pairs, and more than half of them have equal prompts."""
    alike = simulated.prompt_tokens[pairs.simulated] == recorded.prompt_tokens[pairs.recorded]
    return 2 * int(alike.sum()) > len(alike)


def _by_lengths(simulated: Recording, recorded: Recording) -> Pairs:
    """Return requests of equal lengths as pairs, those of the same lengths in their order."""
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in np.argsort(simulated.position, kind="stable")[::-1].tolist():
        waiting[_lengths(simulated, row)].append(row)
    found = []
    for row in np.argsort(recorded.position, kind="stable").tolist():
        if rows := waiting[_lengths(recorded, row)]:
            found.append((rows.pop(), row))
    columns = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return Pairs(columns[0], columns[1], ())


def _lengths(one: Recording, row: int) -> tuple[int, int]:
    return int(one.prompt_tokens[row]), int(one.output_tokens[row])


def _notes(simulated: Recording, recorded: Recording, pairs: Pairs) -> list[str]:
    notes = []
    if len(pairs.simulated) < max(len(simulated), len(recorded)):
        counts = f"{len(simulated)} requests were simulated and {len(recorded)} recorded"
        notes.append(f"{counts}; the {len(pairs.simulated)} that are in both are compared")
    for name in ("prompt_tokens", "output_tokens"):
        ours, theirs = getattr(simulated, name)[pairs.simulated], getattr(recorded, name)[pairs.recorded]
        if differing := int((ours != theirs).sum()):
            what = name.replace("_tokens", "s").replace("_", " ")
            most = int(np.abs(ours - theirs).max())
            notes.append(f"{differing} of {len(ours)} {what} differ in length, by {most} tokens at most")
    blocks = simulated.facts.get("KV blocks"), recorded.facts.get("KV blocks")
    if None not in blocks and blocks[0] != blocks[1]:
        notes.append(f"{blocks[0]} KV blocks were simulated, the recording's server had {blocks[1]}")
    return notes
