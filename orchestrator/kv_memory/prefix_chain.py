"""What a request's KV blocks contain, as chained hashes: two blocks are alike iff all tokens up to their end are.

Only equality matters. Where token ids are known the hash is a 128-bit BLAKE2b digest of the parent's hash and the
block's tokens. From the first block with an unknown token on, contents are unique to the request: there the chain ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from foundation.errors import UserError
from foundation.recent import RecentByIdentity
from orchestrator.requests.request import Request


class PrefixChain:
    """The hashes of one request's leading `blocks` blocks, made when first asked for.

    `known` is the leading part of the request's tokens whose ids are known (prompt, then output). What adapters compute
    from the same tokens differs, so chains of different `adapter` names have nothing in common.
    """

    def __init__(self, known: Sequence[int], block_size: int, adapter: str | None = None) -> None:
        self.blocks = len(known) // block_size
        self._known: Sequence[int] = known
        self._block_size = block_size
        self._tokens = b""
        self._root = b"" if adapter is None else blake2b(adapter.encode(), digest_size=16).digest()
        self._hashes: list[bytes] = []

    def hash(self, index: int) -> bytes:
        """Return the hash of block `index`, which is below `blocks`."""
        if len(self._hashes) <= index:
            self._extend(index + 1)
        return self._hashes[index]

    def _extend(self, blocks: int) -> None:
        """Make the hashes of the first `blocks` blocks; the ids of all are laid out in bytes once."""
        width, hashes = 8 * self._block_size, self._hashes
        if not self._tokens:
            self._tokens = array("q", self._known[: self.blocks * self._block_size]).tobytes()
        tokens, parent = self._tokens, hashes[-1] if hashes else self._root
        for block in range(len(hashes), blocks):
            parent = blake2b(parent + tokens[block * width : (block + 1) * width], digest_size=16).digest()
            hashes.append(parent)


_CHAINS: RecentByIdentity[PrefixChain] = RecentByIdentity(4)


def chain_of(request: Request, block_size: int) -> PrefixChain:
    """Return the chain of `request`; those whom a router asks one after another, and who serves it, share one."""
    return _CHAINS.get(
        [request], lambda: PrefixChain(known_tokens(request), block_size, request.adapter), key=block_size
    )


def known_tokens(request: Request) -> Sequence[int]:
    """Return the request's leading tokens whose ids are known: none, the prompt, or prompt and output.

    Ids that are not as many as the prompt's own tokens are a `UserError`; output ids may end early, and count for
    nothing where tokens that were retrieved stand before them.
    """
    prompt, output = request.prompt_token_ids, request.output_token_ids
    if prompt is None:
        return ()
    own = request.prompt_tokens - request.retrieved_tokens
    if len(prompt) != own:
        raise UserError(
            f"request {request.name or request.id} has {len(prompt)} prompt token ids for {own} prompt tokens",
            line=request.source_line,
            fix="give as many ids as tokens",
        )
    ids: Sequence[int] = prompt
    return ids if output is None or request.retrieved_tokens else [*prompt, *output]
