"""Groups of layers that keep their KV cache alike: all tokens, or those of a sliding window.

Every group has a block table of its own for each request, over one pool of blocks. A block that holds nothing which the
next token could attend to is given back::

    window 6, blocks of 4        0 1 2 3 | 4 5 6 7 | 8 9 . .        10 tokens computed: the next one, the eleventh,
                                 dropped   kept      kept           attends to itself and the 5 before it: 5 .. 9
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """`window`: tokens that a query attends to, itself included; None for all."""

    window: int | None = None

    def dropped_blocks(self, computed: int, block_size: int) -> int:
        """Return how many leading blocks no token after `computed` ones needs any more."""
        if self.window is None:
            return 0
        return max(0, computed - self.window + 1) // block_size

    def covering_blocks(self, block_size: int) -> int:
        """Return how many full blocks in a row hold all that the token after them attends to, itself excepted."""
        assert self.window is not None
        return -(-(self.window - 1) // block_size)


FULL = LayerGroup()


@dataclass(frozen=True, slots=True)
class WindowRules:
    """How the blocks of sliding windows are given back and found again. (The default is vLLM's way until 0.19.)

    - `eager`: blocks go as soon as they leave the windows of all that is decided, though batches in flight read them;
    - `most_in_flight`: tokens that batches in flight may compute; a prompt that must fit whole is counted with no more
      blocks than the window and those fill. None: it is counted whole;
    - `sparse`: only blocks at certain places of a prompt can be found again: those that cover a window before the last
      place where another request could go on (`boundaries`), and before every `interval` tokens (None: every block).
    """

    eager: bool = True
    most_in_flight: int | None = None
    sparse: bool = False
    interval: int | None = 0

    def admission_blocks(self, group: LayerGroup, tokens: int, longest: int, block_size: int) -> int:
        """Return the blocks of `group` that a prompt of `tokens` is counted with, none being longer than `longest`."""
        blocks = -(-tokens // block_size)
        if group.window is None or self.most_in_flight is None:
            return blocks
        held = min(group.window - 1 + self.most_in_flight, longest)
        return min(blocks, -(-held // block_size) + 1)

    def findable(self, group: LayerGroup, columns: range, block_size: int, boundaries: Sequence[int]) -> Iterable[int]:
        """Return those of a request's block `columns` (full ones) that can be found again.

        `boundaries` are the tokens after which another request could go on.
        """
        if group.window is None or not self.sparse:
            return columns
        cover = group.covering_blocks(block_size)
        if self.interval is None:
            return columns if cover else ()
        ends = [boundary // block_size for boundary in boundaries]
        period = self.interval // block_size
        return [
            column
            for column in columns
            if any(end - cover <= column < end for end in ends) or (period and column % period >= period - cover)
        ]


EAGER = WindowRules()
