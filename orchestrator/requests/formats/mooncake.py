"""Mooncake's traces: JSON Lines, arrivals in ms, lengths, and hashes of the prompt's blocks of 512 tokens.

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}

Source: Qin et al., "Mooncake", FAST 2025, and kvcache-ai/Mooncake, FAST25-release: equal ids are equal blocks with
equal blocks before them, and the last block of a prompt may be shorter. A file may be without ids. What a prompt's
answer left in the KV cache has no ids, so a later prompt that holds it computes it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.workload import ReadWorkload

BLOCK = 512
"""Tokens that an id stands for."""
_MS_NS = 10**6


def recognises(beginning: Beginning) -> bool:
    """Whether the first object has lengths and a time by Mooncake's names."""
    return beginning.has("timestamp", "input_length", "output_length")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a trace."""
    from orchestrator.requests.importing.lines import read_lines
    from orchestrator.requests.importing.rows import Rows

    rows = Rows(path, reading)
    read_lines(path, rows, lambda record: _take(record, rows))
    return rows.result(block=BLOCK)


def _take(record: Record, rows: Rows) -> None:
    from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS

    milliseconds = record.number("timestamp", 0, LATEST_ARRIVAL_NS / _MS_NS)
    prompt = record.whole("input_length", 1, MOST_TOKENS)
    output = record.whole("output_length", 1, MOST_TOKENS)
    hashes = _hashes(record, prompt)
    rows.add(prompt, output, round(milliseconds * _MS_NS), record.line, hashes=hashes)


def _hashes(record: Record, prompt: int) -> list[int]:
    from foundation.printable import brief
    from orchestrator.requests.hashed_tokens import MOST_HASH

    hashes = record.list("hash_ids") if record.has("hash_ids") else []
    blocks = -(-prompt // BLOCK)
    if hashes and len(hashes) != blocks:
        what = f"{len(hashes)} ids for {prompt} tokens"
        raise record.wrong(what, "hash_ids", f"give one for each {BLOCK} tokens, {blocks}, or none")
    for at, one in enumerate(hashes):
        if type(one) is not int or not 0 <= one <= MOST_HASH:
            fix = f"give a whole number from 0 to {MOST_HASH}"
            raise record.wrong(f"{brief(one)} is no id of a block", ("hash_ids", at), fix)
    return hashes


request_formats.register("mooncake")(RequestFormat(recognises, read))
