"""What a request's KV blocks contain, as chained hashes: two blocks are alike iff all tokens up to their end are.

Only equality matters. Where token ids are known the hash is a 128-bit BLAKE2b digest of the parent's hash and the
block's tokens; from the first block with an unknown token on, contents are unique to the request, and a pair of
the request's serial number and the block's index says so without hashing anything.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from foundation.errors import UserError
from orchestrator.request import Request


class PrefixChain:
    """The block hashes of one request, made when first asked for.

    `known` is the leading part of the request's tokens whose ids are known (prompt, then output); `serial` is a
    number no other request has.
    """

    def __init__(self, known: Sequence[int], serial: int, block_size: int) -> None:
        self._known = known
        self._serial = serial
        self._block_size = block_size
        self._known_blocks = len(known) // block_size
        self._hashes: list[object] = []

    def hashes(self, count: int) -> list[object]:
        """Return at least the first `count` hashes, in block order (the list is shared: do not change it)."""
        hashes = self._hashes
        for index in range(len(hashes), count):
            hashes.append(self._hash(index))
        return hashes

    def _hash(self, index: int) -> object:
        if index >= self._known_blocks:
            return (self._serial, index)
        parent = self._hashes[index - 1] if index else b""
        assert isinstance(parent, bytes)
        start = index * self._block_size
        tokens = array("q", self._known[start : start + self._block_size])
        return blake2b(parent + tokens.tobytes(), digest_size=16).digest()


def known_tokens(request: Request) -> Sequence[int]:
    """Return the request's leading tokens whose ids are known: none, the prompt, or prompt and output.

    Ids that are not as many as the prompt's tokens are a `UserError`; output ids may end early.
    """
    prompt, output = request.prompt_token_ids, request.output_token_ids
    if prompt is None:
        return ()
    if len(prompt) != request.prompt_tokens:
        raise UserError(
            f"request {request.name or request.id} has {len(prompt)} prompt token ids for "
            f"{request.prompt_tokens} prompt tokens",
            line=request.source_line,
            fix="give as many ids as tokens",
        )
    return [*prompt] if output is None else [*prompt, *output]
