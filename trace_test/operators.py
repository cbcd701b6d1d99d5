"""What operators of a decoder are called in traces, by what the rules need to know of them. Both vocabularies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.digits import whole_number
from foundation.errors import UserError
from trace_gen.mesh import Mesh
from trace_gen.trace import NO_LAYER, CommType, RowKind, Trace

ATTENTION = frozenset({"attention", "attn", "latent_attention", "qk_matmul", "softmax", "sv_matmul"})
ABSORBED = frozenset({"q_absorb", "latent_attention", "v_up_proj"})
"""Of latent attention: what works on the tokens whose up-projections are absorbed, and nothing else does."""
EXPANDED = frozenset({"kv_b_proj", "attention", "attn"})
"""Of latent attention: what works on the other tokens."""
LATENT_FIRST = frozenset({"qkv_a_proj", "q_a_proj", "kv_a_proj"})
LATENT = frozenset({*LATENT_FIRST, *ABSORBED, "q_a_norm", "q_b_proj", "kv_a_norm", "kv_b_proj"})
"""Operators that only latent attention has; it also has some that others have."""
LATENT_ENDS = frozenset({"attention", "attn", "v_up_proj"})
"""What they put out goes into the output projection, that of all of them together."""
ROW_PARALLEL = frozenset({"o_proj", "out_proj", "down_proj", "fc2"})
"""Projections that sum over what the ranks hold apart: their outputs are partial until they are reduced."""
NORMS = frozenset({"layernorm", "input_layernorm", "post_layernorm"})
"""Norms of a block over the hidden state."""
SHARED_EXPERTS = "shared_down_proj"
EXPERT_SUM = "expert_sum"
"""Both are partial sums where every expert's width is divided over the ranks; then they are reduced together."""
EXPERT_EXCHANGES = {
    "expert_dispatch": (CommType.ALLTOALL, CommType.ALLGATHER),
    "expert_combine": (CommType.ALLTOALL, CommType.REDUCESCATTER),
    "expert_gather": (CommType.ALLGATHER,),
}
"""Rows of their own where ranks hold whole experts, and nowhere else: the forms of our generator and of the field's."""
SEQUENCE_EXCHANGES = {
    "sequence_scatter": (CommType.REDUCESCATTER,),
    "sequence_gather": (CommType.ALLGATHER,),
}
"""Rows of their own where tensor-parallel ranks share out the tokens of norms."""
BY_TOKEN = frozenset({*SEQUENCE_EXCHANGES, "project_in", "position_embedding", "embedding_scale"})
"""What is shared out with the norms."""
CONTEXT_EXCHANGES = {
    "query_gather": (CommType.ALLGATHER,),
    "lse_gather": (CommType.ALLGATHER,),
    "output_scatter": (CommType.REDUCESCATTER,),
    "kv_gather": (CommType.ALLGATHER,),
    "kv_pass": (CommType.PERMUTE,),
}
CONTEXT_MERGE = "attention_merge"
"""Rows of their own around attention where context-parallel ranks divide sequences."""
VOCABULARY_PARALLEL = frozenset({"embedding", "lm_head"})
"""Split by vocabulary where a generator does so; a collective may follow them."""
JOINS_HIDDEN_STATE = "hidden_state_proj"
"""Half of its input is a hidden state of another model, which no row of the trace puts out."""
TOGETHER = -1
"""As a member: the rank set is that of several data-parallel members."""
BLOCK_ENDS = frozenset({"down_proj", "fc2"})
MOST_RANKS = 1 << 16
"""No text names more."""


def works(trace: Trace) -> NDArray[np.int64]:
    """Return the rows that compute or communicate, ascending: all but memory movement."""
    result: NDArray[np.int64] = np.flatnonzero((trace.kind != RowKind.MEM_LOAD) & (trace.kind != RowKind.MEM_STORE))
    return result


def blocks(trace: Trace) -> NDArray[np.int64]:
    """Return each row's block: its layer, or, where a text says none, how many blocks have ended before it."""
    if (trace.layer != NO_LAYER).any():
        return trace.layer.astype(np.int64)
    ends = np.array([name in BLOCK_ENDS for name in trace.op_names], dtype=np.int64)
    ended = ends[trace.op] if ends.size else np.zeros(trace.rows, dtype=np.int64)
    result: NDArray[np.int64] = np.cumsum(ended) - ended
    return result


def named_mesh(trace: Trace, *, spread: bool = False) -> Mesh | None:
    """Return the mesh that a trace of our generator names (degrees it leaves out are 1), None for one that cannot be.

    `spread`: with the ranks that whole experts are spread over, too.
    """
    names = ("tensor", "pipeline", "expert", "data", "context")
    degrees = [whole_number(trace.attributes.get(f"{name}_parallel", "1"), 1, MOST_RANKS) for name in names]
    redundant = whole_number(trace.attributes.get("redundant_experts", "0"), 0, MOST_RANKS) if spread else 0
    tensor, pipeline, expert, data, context = (degree or MOST_RANKS + 1 for degree in degrees)
    listed = trace.attributes.get("pipeline_layers")
    layers = [] if listed is None else [whole_number(count, 1, MOST_RANKS) or 0 for count in listed.split(",")]
    if tensor * pipeline * data * context > MOST_RANKS:
        return None
    try:
        return Mesh(tensor, pipeline, expert if spread else 1, data, context, tuple(layers), redundant or 0)
    except UserError:
        return None


def mesh_of(trace: Trace) -> Mesh:
    """Return the mesh that a trace of our generator names; that of a single rank where it names none."""
    return named_mesh(trace) or Mesh()


def members(trace: Trace) -> NDArray[np.int64]:
    """Return the data-parallel member of each rank set, `TOGETHER` for those that several members share."""
    found, mesh = np.zeros(len(trace.rank_sets), dtype=np.int64), mesh_of(trace)
    for index, ranks in enumerate(trace.rank_sets if mesh.data > 1 else ()):
        own = set(map(mesh.member_of, ranks))
        found[index] = own.pop() if len(own) == 1 else TOGETHER
    return found


def rows_named(trace: Trace, names: frozenset[str]) -> NDArray[np.int64]:
    """Return the rows whose operator is one of `names`."""
    wanted = np.array([name in names for name in trace.op_names], dtype=np.bool_)
    result: NDArray[np.int64] = np.flatnonzero(wanted[trace.op]) if wanted.size else np.zeros(0, dtype=np.int64)
    return result
