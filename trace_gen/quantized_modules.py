"""What checkpoints call the modules that they quantise or leave out -> roles of matrices, and layers.

A name is that of a module (``model.layers.3.mlp.down_proj``), the end of one (``self_attn``), or a regular expression
of the plain kind that checkpoints have (``re:.*mlp\\.(gate|up)_proj$``): words, wildcards between them, alternatives
in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trace_gen.quantization import ATTENTION, DENSE, EXPERTS, SHARED_EXPERTS

_NOTHING: tuple[str, ...] = ()
_GATE_UP, _DOWN = (EXPERTS[0], SHARED_EXPERTS[0]), (EXPERTS[1], SHARED_EXPERTS[1])
_MODULES: dict[str, tuple[str, ...]] = {
    **{role: (role,) for role in (*ATTENTION, "fc1", "fc2", "lm_head")},
    "q_proj": ("q_proj", "q_b_proj"),
    "kv_a_proj_with_mqa": ("kv_a_proj",),
    "qkv_proj": ATTENTION[:3],
    "gate_proj": ("gate_proj", *_GATE_UP),
    "up_proj": ("up_proj", *_GATE_UP),
    "gate_up_proj": ("gate_proj", "up_proj", *_GATE_UP),
    "down_proj": ("down_proj", *_DOWN),
    **dict.fromkeys(("self_attn", "attention", "attn"), ATTENTION),
    **dict.fromkeys(("mlp", "block_sparse_moe", "feed_forward"), (*DENSE, *EXPERTS, *SHARED_EXPERTS)),
    "experts": EXPERTS,
    **dict.fromkeys(("w1", "w3"), EXPERTS[:1]),
    "w2": EXPERTS[1:],
    **dict.fromkeys(("shared_expert", "shared_experts"), SHARED_EXPERTS),
    **dict.fromkeys(("gate", "router", "shared_expert_gate", "embed_tokens", "norm", "wte", "wpe"), _NOTHING),
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm"), _NOTHING),
    **dict.fromkeys(("q_a_layernorm", "kv_a_layernorm", "sinks"), _NOTHING),
    **dict.fromkeys(("vision_model", "vision_tower", "visual", "multi_modal_projector"), _NOTHING),
}
"""Modules -> the roles of their matrices (none: they are never quantised, or not simulated)."""
_INSIDE: dict[str, tuple[str, ...]] = {
    "experts": EXPERTS,
    **dict.fromkeys(("shared_expert", "shared_experts"), SHARED_EXPERTS),
    **dict.fromkeys(("mlp", "feed_forward"), DENSE),
}
"""Modules that say which of the projections of that name is meant."""
_MOST_ALTERNATIVES = 64


def named_roles(entry: str) -> Iterator[tuple[str, frozenset[str] | None, int | None]]:
    """Yield what an entry names: the module, the roles of its matrices (None: it is unknown), its layer (None: all)."""
    for plain in _alternatives(entry):
        words, layer = _words(plain)
        module, inside = (words[-1] if words else ""), (words[-2] if len(words) > 1 else "")
        roles = _MODULES.get(module)
        if roles is not None and inside in _INSIDE and module.endswith("_proj"):
            roles = tuple(role for role in roles if role in _INSIDE[inside])
        yield module, None if roles is None else frozenset(roles), layer


def _alternatives(entry: str) -> list[str]:
    """Return an entry once for each of the alternatives in its brackets: ``(a|b)_c`` is ``a_c`` and ``b_c``."""
    found = [entry]
    while len(found) < _MOST_ALTERNATIVES and (bracket := re.search(r"\(([^()|]*(?:\|[^()|]*)+)\)", found[0])):
        choices = bracket[1].split("|")
        found = [one.replace(bracket[0], choice, 1) for one in found for choice in choices]
    return found


def _words(entry: str) -> tuple[list[str], int | None]:
    """Return the words of a name, and its layer (None: in all): ``model.layers.3.mlp.gate`` has layer 3."""
    parts = [part for part in re.split(r"[.*$^\\()/]+|re:", entry) if part]
    words = [part for part in parts if not part.isdecimal()]
    numbers = [part for part in parts if part.isascii() and part.isdecimal() and len(part) < 7]
    return words, int(numbers[0]) if numbers else None
