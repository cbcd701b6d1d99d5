"""Who loses its place when those that decode find no KV cache for their next tokens (SGLang's retract_decode).

Those with the fewest tokens of output go first, of equals the one with the longest prompt. They keep their output, and
lose their KV cache: what of it was in the radix tree may stay there for a while. The others go on in the order of this
choice, who goes last first.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.kv_memory.radix import RadixKV
from orchestrator.schedulers.sglang.entry import Entry
from orchestrator.schedulers.sglang.estimate import RETRACT_STEPS


def lacking(entries: Sequence[Entry]) -> int:
    """Return the pages that a decode of `entries` takes."""
    return sum(entry.computed == entry.room for entry in entries)


def retract(kv: RadixKV, running: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Take the KV cache from some of `running`, one at least; return who goes on and who has lost its place.

    SGLang does not retract the last one, and stops where that finds no page because others, whose prompts are being
    computed, hold all of them; here it loses its place as well.
    """
    going = sorted(running, key=lambda entry: (entry.output, -entry.request.prompt_tokens), reverse=True)
    gone: list[Entry] = []
    while going and not (gone and kv.make_available(lacking(going) * kv.block_size)):
        if len(going) == 1 and kv.make_available(lacking(going) * kv.block_size):
            break
        entry = going.pop()
        kv.release(entry, resumes=True)
        entry.computed = 0
        entry.retracted = True
        entry.preemptions += 1
        gone.append(entry)
        kv.make_available(len(going) * RETRACT_STEPS)
    return going, gone
