"""Which tokens multi-head latent attention absorbs its up-projections for, and which it expands keys and values for.

Both give the same result (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1.2 and appendix C). Expanded, keys and values of
all heads are computed from the latent vectors of all tokens attended to: few operations a query-key pair, much to do
and to move a token of the context. Absorbed, queries are taken into the latent space and attend to what the cache
holds, one KV head for all of them: many operations a pair, little to move. Engines so expand for prompts and absorb
for decodes (`BatchShape.decoding`), as vLLM does (0.19, v1/attention/backends/mla).
"""

from __future__ import annotations

from typing import Literal, get_args

from foundation.errors import UserError
from foundation.printable import brief

Absorption = Literal["auto", "absorb", "expand"]
"""``"auto"``: as described above; otherwise all tokens alike."""


def absorption_named(name: str) -> Absorption:
    """Return the absorption called `name`; an unknown one is a `UserError`."""
    known: tuple[Absorption, ...] = get_args(Absorption)
    for absorption in known:
        if absorption == name:
            return absorption
    raise UserError(f"{brief(name)} is unknown", field="--mla", fix=f"give one of {', '.join(known)}")
