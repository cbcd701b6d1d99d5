"""What the operators of a trace are called: data, so that a table of measurements brings its own names.

An operator has a *role* in its model (`q_proj`, `attention_norm`), which the code goes by, and a name in the trace,
which a performance model's vocabulary decides. Projections of one input whose roles share a name are one operator:

    fused   embedding | layernorm qkv_proj [qk_norm] [rotary_emb] attention o_proj layernorm
            gate_up_proj act_fn down_proj  (or fc1 act_fn fc2) | final_layernorm lm_head sampler
    split   embedding | input_layernorm q_proj k_proj v_proj [qk_norm] [rope] attn o_proj post_layernorm
            gate_proj up_proj act_fn down_proj  (or fc1 act_fn fc2) | final_layernorm lm_head

Where the norms of a block stand is its form's to say (`trace_gen.architecture.BlockForm`); split, the first is called
input_layernorm and all others post_layernorm. Some models have `project_in position_embedding` or `embedding_scale`
after the embedding, `project_out` before the LM head, `logit_softcap` after it. Multi-head latent attention
(`trace_gen.attention.latent`) has operators of its own between the first norm and o_proj.

The split names are those of LLMServingSim v0.2.1's tables, which know no sampler, nor what is done to embeddings and
logits element by element; there, rotary embedding and attention are rows of their own for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from foundation.errors import InternalError
from foundation.records import dataclass
from trace_gen.trace import OperatorClass, RowKind

ROLES: Mapping[str, OperatorClass] = {
    "embedding": OperatorClass.EMBEDDING,
    **dict.fromkeys(("embedding_scale", "position_embedding"), OperatorClass.ELEMENTWISE),
    **dict.fromkeys(("project_in", "project_out", "hidden_state_proj"), OperatorClass.GEMM),
    **dict.fromkeys(("attention_norm", "attention_post_norm"), OperatorClass.ELEMENTWISE),
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), OperatorClass.GEMM),
    **dict.fromkeys(("qk_norm", "rotary", "mlp_norm", "mlp_post_norm"), OperatorClass.ELEMENTWISE),
    **dict.fromkeys(("q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj", "q_absorb", "v_up_proj"), OperatorClass.GEMM),
    **dict.fromkeys(("q_a_norm", "kv_a_norm"), OperatorClass.ELEMENTWISE),
    **dict.fromkeys(("attention", "latent_attention"), OperatorClass.ATTENTION),
    **dict.fromkeys(("attention_scatter", "attention_gather"), OperatorClass.COMMUNICATION),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj", "fc1", "fc2"), OperatorClass.GEMM),
    "act_fn": OperatorClass.ELEMENTWISE,
    **dict.fromkeys(("shared_gate_up_proj", "shared_down_proj", "router"), OperatorClass.GEMM),
    **dict.fromkeys(("shared_act_fn", "expert_act_fn", "expert_sum"), OperatorClass.ELEMENTWISE),
    **dict.fromkeys(("expert_gate_up_proj", "expert_down_proj"), OperatorClass.GROUPED_GEMM),
    **dict.fromkeys(("expert_dispatch", "expert_combine", "expert_gather"), OperatorClass.COMMUNICATION),
    **dict.fromkeys(("sequence_scatter", "sequence_gather"), OperatorClass.COMMUNICATION),
    **dict.fromkeys(("query_gather", "lse_gather", "output_scatter"), OperatorClass.COMMUNICATION),
    **dict.fromkeys(("kv_gather", "kv_pass"), OperatorClass.COMMUNICATION),
    "attention_merge": OperatorClass.ELEMENTWISE,
    "final_norm": OperatorClass.ELEMENTWISE,
    "lm_head": OperatorClass.GEMM,
    "logit_softcap": OperatorClass.ELEMENTWISE,
    "sampler": OperatorClass.SAMPLER,
}
"""Every role, with the class of its operator. A role without a name in a vocabulary is called as it is here."""


@dataclass(frozen=True)
class Vocabulary:
    """The names of one kind of table.

    - `names`: role -> name in the trace;
    - `per_request`: roles that have a row for each request, even where attention is one row a batch;
    - `absent`: roles that have no row.
    """

    name: str
    names: Mapping[str, str] = field(default_factory=dict)
    per_request: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = {*self.names, *self.per_request, *self.absent} - set(ROLES)
        if unknown:
            raise InternalError(
                f"the vocabulary {self.name} names roles that do not exist: {', '.join(sorted(unknown))}"
            )

    def of(self, role: str) -> str:
        """Return what the operator of `role` is called."""
        return self.names.get(role, role)


FUSED = Vocabulary(
    "fused",
    {
        **dict.fromkeys(("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm"), "layernorm"),
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
        **dict.fromkeys(("q_a_proj", "kv_a_proj"), "qkv_a_proj"),
        **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
        "rotary": "rotary_emb",
        "final_norm": "final_layernorm",
    },
)
SPLIT = Vocabulary(
    "split",
    {
        "attention_norm": "input_layernorm",
        **dict.fromkeys(("attention_post_norm", "mlp_norm", "mlp_post_norm"), "post_layernorm"),
        "rotary": "rope",
        "attention": "attn",
        "final_norm": "final_layernorm",
    },
    per_request=frozenset({"rotary"}),
    absent=frozenset({"embedding_scale", "logit_softcap", "sampler"}),
)
VOCABULARIES = {words.name: words for words in (FUSED, SPLIT)}
_CLASSES: Mapping[str, OperatorClass] = {
    **dict.fromkeys(("qk_matmul", "softmax", "sv_matmul"), OperatorClass.ATTENTION),  # OPT's, in v0.2.1's tables
    "out_proj": OperatorClass.GEMM,
    **ROLES,
    **{words.of(role): kind for words in (FUSED, SPLIT) for role, kind in ROLES.items()},
}


def class_of(name: str, kind: int) -> OperatorClass:
    """Return the class of the operator called `name` in a text trace, of a row of `kind` (`RowKind`)."""
    if kind in (RowKind.MEM_LOAD, RowKind.MEM_STORE):
        return OperatorClass.MEMORY
    if kind == RowKind.COMM:
        return OperatorClass.COMMUNICATION
    return _CLASSES.get(name, OperatorClass.OTHER)
