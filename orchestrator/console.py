"""What the main job says while it runs: what is simulated, a line an interval, and (verbose) a line an iteration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from orchestrator.instance import CompletedBatch
from orchestrator.intervals import Interval
from orchestrator.metrics import prompt_tokens
from trace_gen.batch_shape import KVTransfer


class Console:
    """Writes to `stream`; `verbose` adds the iterations."""

    def __init__(self, stream: TextIO, *, verbose: bool) -> None:
        self._stream = stream
        self._verbose = verbose

    def say(self, text: str) -> None:
        """Print a line and flush, so that a reader of a pipe sees it at once."""
        print(text, file=self._stream, flush=True)

    def intervals(self, intervals: Iterable[Interval]) -> None:
        """Print a line an interval."""
        for interval in intervals:
            self.say(
                f"[{interval.end_ns / 1e9:.3f} s] prompt {interval.prompt_per_s:.1f} tokens/s, "
                f"generation {interval.generation_per_s:.1f} tokens/s, running {interval.running}, "
                f"waiting {interval.waiting}, KV in use {100 * interval.kv_used:.1f} %"
            )

    def batch(self, first_iteration: int, done: CompletedBatch) -> None:
        """Print the iterations of a batch, each with its own times."""
        if not self._verbose:
            return
        batch = done.batch
        work = f"{len(batch.requests)} requests, {sum(batch.new_tokens)} tokens"
        prompts = prompt_tokens(done)
        if prompts:
            work += f" ({prompts} of prompts)"
        begins = [done.start_ns, *done.ends_ns[:-1].tolist()]
        for step, (begin, end) in enumerate(zip(begins, done.ends_ns.tolist(), strict=True)):
            moved = "" if step else _moved(batch.kv_evictions, "evicted") + _moved(batch.kv_loads, "reloaded")
            self.say(
                f"iteration {first_iteration + step}: {begin / 1e6:.6f} ms + {(end - begin) / 1e6:.6f} ms, "
                f"{work}{moved}"
            )
        finished = sorted(request.id for request in done.outcome.finished)
        if finished:
            self.say(f"  finished: {', '.join(map(str, finished))}")


def _moved(transfers: tuple[KVTransfer, ...], verb: str) -> str:
    return "".join(
        f"; {verb} request {transfer.request_id} ({transfer.blocks} blocks, {transfer.bytes / 1e6:.3f} MB)"
        for transfer in transfers
    )
