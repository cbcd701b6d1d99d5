"""What a request to an OpenAI-like server asks for: the texts of its prompt, and how long its answer may be.

Chat templates are not applied: a prompt is its messages' texts. Images, audio and definitions of tools are left aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foundation.printable import brief
from orchestrator.request_table import MOST_TOKEN_ID
from orchestrator.requests.importing.record import Record
from orchestrator.requests.importing.texts import Counted, TextTokens
from orchestrator.workload import MOST_TOKENS

_PROMPTS = ("messages", "prompt", "input")
_LONGEST = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def prompt_of(body: Record, texts: TextTokens, *names: str) -> Counted:
    """Return the prompt of a request in tokens, at least one; it is in the first of `names` (those of OpenAI's API)."""
    name = body.first(*(names or _PROMPTS), fix="give the prompt")
    value = body.values[name]
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        if min(value) < 0 or max(value) > MOST_TOKEN_ID:
            raise body.wrong("not all are token ids", name, f"give whole numbers from 0 to {MOST_TOKEN_ID}")
        return Counted(len(value), value)
    parts = [texts.of(text) for text in _texts(body, name, value)]
    tokens, ids = sum(part.tokens for part in parts), [one for part in parts for one in part.ids]
    if not 1 <= tokens <= MOST_TOKENS:
        raise body.wrong(f"the prompt has {tokens} tokens", name, f"give 1 to {MOST_TOKENS}")
    return Counted(tokens, ids)


def output_of(body: Record) -> int:
    """Return how long the answer is: as long as it may be."""
    name = body.first(*_LONGEST, fix="say how long the answer is")
    return body.whole(name, 1, MOST_TOKENS)


def _texts(body: Record, name: str, value: Any) -> Iterator[str]:
    """Yield the texts of a prompt: a text, or a list of one, or of messages."""
    if isinstance(value, str):
        yield value
        return
    if not isinstance(value, list):
        raise body.wrong(f"{brief(value)} is neither a text nor a list", name, "give a text or a list of messages")
    for at, one in enumerate(value):
        if isinstance(one, str):
            if len(value) > 1:
                raise body.wrong(f"{len(value)} prompts in one request", name, "write a request for each")
            yield one
        elif isinstance(one, dict):
            yield from _contents(one)
        else:
            raise body.wrong(f"{brief(one)} is no message", (name, at), "write its fields by name")


def _contents(message: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a message, or of one part of it."""
    for name in ("content", "text"):
        value = message.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, str):
                    yield part
                elif isinstance(part, dict) and isinstance(part.get("text"), str):
                    yield part["text"]
