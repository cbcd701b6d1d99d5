"""ShareGPT: a JSON list of conversations, as texts. Arrivals, and token counts, come from elsewhere.

    [{"id": "a", "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]

`sharegpt` takes the first two turns of every conversation as a prompt and its answer, as `vllm bench serve` does
(vllm/benchmarks/datasets), but in the file's order, and whatever their lengths are; `--req_num` takes the first so
many. `sharegpt-sessions` takes every answer as a request whose prompt is all that was said before, and which comes when
the answer before it is complete. Texts are tokens turn by turn, without a chat template.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.requests.importing.texts import Counted, TextTokens
    from orchestrator.workload import ReadWorkload

_ANSWERS = {"gpt", "assistant", "chatgpt", "bing", "bard"}
"""Who answers, in the data that goes round."""


class Turn(NamedTuple):
    """Something that was said."""

    answers: bool
    said: Counted


def recognises(beginning: Beginning) -> bool:
    """Whether the text is a list of conversations."""
    return beginning.in_list and "conversations" in beginning.names


def read_first(path: Path, reading: Reading) -> ReadWorkload:
    """Read the first exchange of every conversation."""
    return _read(path, reading, _take_first)


def read_sessions(path: Path, reading: Reading) -> ReadWorkload:
    """Read every conversation as a session."""
    return _read(path, reading, _take_session)


def _read(path: Path, reading: Reading, take: Callable[[list[Turn], Rows, int | None], bool]) -> ReadWorkload:
    from orchestrator.requests.importing.elements import read_elements
    from orchestrator.requests.importing.rows import Rows

    rows, without = Rows(path, reading), 0

    def take_one(record: Record) -> None:
        nonlocal without
        without += not take(list(_turns(record, reading.texts)), rows, record.line)

    read_elements(path, rows, take_one)
    read = rows.result(timed=False)
    return replace(read, notes=(f"conversations without an answer, left out: {without}",) if without else ())


def _turns(record: Record, texts: TextTokens) -> Iterator[Turn]:
    for turn in record.objects("conversations"):
        yield Turn(turn.text("from").lower() in _ANSWERS, texts.of(turn.text("value")))


def _take_first(turns: list[Turn], rows: Rows, line: int | None) -> bool:
    """Take the first two turns; return whether there are two that say something."""
    if len(turns) < 2 or not (turns[0].said.tokens and turns[1].said.tokens):
        return False
    prompt, answer = turns[0].said, turns[1].said
    rows.add(prompt.tokens, answer.tokens, line=line, prompt_ids=prompt.ids, output_ids=answer.ids)
    return True


def _take_session(turns: list[Turn], rows: Rows, line: int | None) -> bool:
    """Take every answer after something was said; return whether there is one."""
    session, tokens, ids = 0, 0, list[int]()
    for turn in turns:
        if turn.answers and tokens and turn.said.tokens:
            session = session or rows.new_session()
            rows.add(tokens, turn.said.tokens, line=line, session=session, prompt_ids=ids, output_ids=turn.said.ids)
        tokens += turn.said.tokens
        ids.extend(turn.said.ids)
    return session > 0


request_formats.register("sharegpt")(RequestFormat(recognises, read_first))
request_formats.register("sharegpt-sessions")(RequestFormat(None, read_sessions))
