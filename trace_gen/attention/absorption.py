"""Which tokens multi-head latent attention absorbs its up-projections for, and which it expands keys and values for.

Both give the same result (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1.2 and appendix C). Expanded, keys and values of
all heads are computed from the latent vectors of all tokens attended to: few operations a query-key pair, much to do
and to move a token of the context. Absorbed, queries are taken into the latent space and attend to what the cache
holds, one KV head for all of them: many operations a pair, little to move. Engines so expand for prompts and absorb
for decodes. vLLM (0.19, v1/attention/backends/mla) divides a batch in this way, by whether a request computes more
tokens than a decode does: one, or one and its drafts, all of whose logits are needed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.printable import brief
from trace_gen.batch_shape import BatchShape
from trace_gen.operators import Rows

Absorption = Literal["auto", "absorb", "expand"]
"""``"auto"``: as described above; otherwise all tokens alike."""


def latent_rows(absorption: Absorption, batch: BatchShape) -> NDArray[np.int64]:
    """Return for each request of `batch` which rows its tokens are: `Rows.ABSORBED` or `Rows.EXPANDED`, ``[n]``."""
    if absorption == "auto":
        decodes = batch.new_tokens <= np.maximum(batch.samples, 1)
        return np.where(decodes, int(Rows.ABSORBED), int(Rows.EXPANDED))
    way = Rows.ABSORBED if absorption == "absorb" else Rows.EXPANDED
    return np.full(len(batch.new_tokens), int(way), dtype=np.int64)


def absorbed_tokens(absorption: Absorption, batch: BatchShape) -> int:
    """Return how many tokens of `batch` are `Rows.ABSORBED`; the others are `Rows.EXPANDED`."""
    return int(batch.new_tokens[latent_rows(absorption, batch) == Rows.ABSORBED].sum())


def absorption_named(name: str) -> Absorption:
    """Return the absorption called `name`; an unknown one is a `UserError`."""
    known: dict[str, Absorption] = {"auto": "auto", "absorb": "absorb", "expand": "expand"}
    if name not in known:
        raise UserError(f"{brief(name)} is unknown", field="--mla", fix=f"give one of {', '.join(known)}")
    return known[name]
