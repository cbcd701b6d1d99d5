"""What the KV memory keeps for one request. A scheduler's own counters of a request extend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.kv_memory.prefix_chain import PrefixChain
    from orchestrator.kv_memory.radix_tree import Node
    from orchestrator.requests.request import Request


class Holder:
    """A request that may hold KV blocks::

        0 ............... computed ........ room            tokens whose KV has a slot
        | blocks[0] | blocks[1] | ... | blocks[-1] |

    - `computed`: tokens whose KV is in the cache, or will be when all batches in flight are done;
    - `in_flight`: those of them that batches in flight compute;
    - `tokens`: tokens that are known: the prompt, and the output that has arrived;
    - `room`: tokens that the blocks have slots for, blocks that were dropped included;
    - `dropped`: leading blocks given back, by layer group (see `orchestrator.kv_memory.groups`);
    - `away`: blocks that are on another tier, 0 while they are on the device;
    - `tables`: block numbers by layer group, where blocks have numbers (prefix caching);
    - `chain`: the hashes of its leading blocks, as far as token ids are known; None where none is;
    - `junction`: how many tokens the groups of layers could have found that found the most, if not all found as many;
    - `registered`: leading blocks that are full of tokens that have arrived;
    - `leaf`: where the prefix that it has locked ends, in a radix tree, and `shared`: the tokens of that prefix;
    - `ids`: what stands for its tokens in a radix tree, as far as that was asked for;
    - `preemptions`: how often it lost its place.
    """

    __slots__ = (
        "away",
        "chain",
        "computed",
        "dropped",
        "ids",
        "in_flight",
        "junction",
        "leaf",
        "preemptions",
        "registered",
        "request",
        "room",
        "serial",
        "shared",
        "tables",
        "tokens",
    )

    def __init__(self, request: Request, serial: int) -> None:
        self.request = request
        self.serial = serial
        self.tokens = request.prompt_tokens
        self.computed = 0
        self.in_flight = 0
        self.room = 0
        self.away = 0
        self.registered = 0
        self.junction = 0
        self.preemptions = 0
        self.dropped: list[int] = []
        self.tables: list[list[int]] = []
        self.chain: PrefixChain | None = None
        self.leaf: Node | None = None
        self.shared = 0
        self.ids: NDArray[np.int64] | None = None

    @property
    def known_blocks(self) -> int:
        """Leading blocks whose contents others may have as well."""
        return 0 if self.chain is None else self.chain.blocks
