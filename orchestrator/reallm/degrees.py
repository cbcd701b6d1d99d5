"""How ReaLLM writes a parallelism: degrees joined by underscores, in any order, a 1 left out (``ep8_pp2``)."""

from __future__ import annotations

import re

from foundation.records import dataclass

KINDS = ("ep", "tp", "pp", "cp")
_PART = re.compile(r"(ep|tp|pp|cp|dp)([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Degrees:
    """Expert, tensor, pipeline and context parallelism of one system, as `text` wrote them."""

    text: str
    expert: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    @property
    def devices(self) -> int:
        """Devices that these degrees take."""
        return self.expert * self.tensor * self.pipeline * self.context

    @property
    def sharing(self) -> int:
        """Devices that divide the attention of one stage by heads: ReaLLM's expert-parallel ones repeat each other's
        attention, ours share it."""
        return self.expert * self.tensor


def read_degrees(text: str) -> Degrees:
    """Return the degrees that `text` writes; a `ValueError` is one clause: what is wrong, and what would be right."""
    found: dict[str, int] = {}
    for part in text.split("_"):
        matched = _PART.fullmatch(part)
        if matched is None:
            raise ValueError("is no parallelism; write degrees as in ep2_tp4_pp1_cp1")
        kind, degree = matched[1], int(matched[2])
        if kind in found:
            raise ValueError(f"says {kind} twice; leave one out")
        if degree < 1:
            raise ValueError(f"has {kind} 0; give at least 1")
        found[kind] = degree
    if found.pop("dp", 1) != 1:
        raise ValueError("has data parallelism, which ReaLLM does not use; leave it out, or give runs --instances")
    return Degrees(text, *(found.get(kind, 1) for kind in KINDS))
