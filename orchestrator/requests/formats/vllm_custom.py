"""`vllm bench serve --dataset-name custom`: JSON Lines, a prompt as text and perhaps how long its answer is.

    {"prompt": "What is the capital of India?", "output_tokens": 10}

Source: vllm/benchmarks/datasets, `CustomDataset`. Where a line does not say, the answer has 256 tokens, vLLM's default
of `--custom-output-len`. The file's order is kept (vLLM shuffles it).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.workload import ReadWorkload

DEFAULT_OUTPUT = 256


def recognises(beginning: Beginning) -> bool:
    """Whether the first object is a prompt."""
    return beginning.has("prompt")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a file of prompts."""
    from orchestrator.requests.importing.chat import prompt_of
    from orchestrator.requests.importing.lines import read_lines
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.workload import MOST_TOKENS

    rows, unsaid = Rows(path, reading), 0

    def take(record: Record) -> None:
        nonlocal unsaid
        prompt = prompt_of(record, reading.texts, "prompt")
        says = record.has("output_tokens")
        output = record.whole("output_tokens", 1, MOST_TOKENS) if says else DEFAULT_OUTPUT
        rows.add(prompt.tokens, output, line=record.line, prompt_ids=prompt.ids)
        unsaid += not says

    read_lines(path, rows, take)
    read = rows.result(timed=False)
    said = f"answers whose length the file does not say, {DEFAULT_OUTPUT} tokens as vLLM has it: {unsaid}"
    return replace(read, notes=(said,) if unsaid else ())


request_formats.register("vllm-custom")(RequestFormat(recognises, read))
