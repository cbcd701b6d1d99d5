"""What holds of every run, whatever the policy: requests end, tokens are computed in order, nothing is left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestrator.requests.request import Request
from tests.orchestrator.serving import Run


def check_conserved(run: Run, rows: Sequence[Request], *, swaps: bool) -> None:
    """Check a run of `rows` on an engine whose prompts are computed; `swaps`: who loses its place keeps its tokens."""
    usage = run.engine.usage()
    assert (usage.free_blocks, usage.running, usage.waiting) == (usage.total_blocks, 0, 0)
    assert run.engine.idle()
    finished = run.by_id()
    gone = {number for _, number in run.aborted}
    assert sorted([*finished, *gone]) == list(range(len(rows))), "all end, once"
    for number, row in finished.items():
        assert row["output"] == rows[number].output_tokens
        assert row["arrival"] <= row["queued"] <= row["scheduled"] < row["first_token"] <= row["end"]
    computed = _check_tokens(run, swaps=swaps)
    for number in finished:
        request = rows[number]
        assert computed[number] == request.prompt_tokens + request.output_tokens - 1


def _check_tokens(run: Run, *, swaps: bool) -> Counter[int]:
    """Check that every token of a request is computed in order, anew if it lost its place, but for what was found.

    Return how many tokens of each are computed at the end.
    """
    computed: Counter[int] = Counter()
    for done in run.batches:
        batch = done.batch
        if not swaps:
            for request in batch.preempted:
                computed[request.id] = 0
        for request, hit in batch.admitted:
            if not (swaps and computed[request.id]):
                computed[request.id] = hit
        columns = (batch.requests, batch.new_tokens.tolist(), batch.context_tokens.tolist())
        for request, new, context in zip(*columns, strict=True):
            assert context == computed[request.id]
            computed[request.id] = context + new + batch.steps - 1
    return computed
