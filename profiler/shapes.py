"""An operator of a model on one rank -> the kernel that computes it. What no kernel computes is refused.

Matrices, look-ups and element-wise operators come from `trace_gen.model_operators`, as the simulator has them;
attention and experts, whose work depends on more than tokens, from the layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foundation.errors import UserError
from profiler.work import Kernel
from trace_gen.architecture import ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.operators import Operator
from trace_gen.precision import Precision, ceil_div
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import Vocabulary

FLAG = "--model"
NORMS = frozenset({"layernorm", "final_layernorm", "input_layernorm", "post_layernorm"})
ACTIVATIONS = frozenset({"act_fn", "shared_act_fn"})
INSIDE_EXPERTS = frozenset({"router", "expert_act_fn", "expert_sum"})
"""Timed with the experts' matrices, as one."""
_SINGLE = {"embedding_scale": "scale", "position_embedding": "add_positions", "logit_softcap": "softcap"}


def check_measurable(model: ModelArchitecture) -> None:
    """Raise a `UserError` where the model has what a bundle of this form cannot say."""
    what = ""
    if model.absorption is not None:
        what = "latent attention, which bundles of this form do not know"
    elif len(model.mixtures) > 1:
        what = f"{len(model.mixtures)} kinds of mixtures of experts, which bundles of this form do not know"
    elif model.quantization is not None:
        what = "quantised matrices, for which the profiler has no kernels"
    elif not all(isinstance(kind.attention, GroupedAttention) for kind in model.layer_kinds):
        what = "attention for which the profiler has no kernels"
    if what:
        raise UserError(f"{model.name} has {what}", field=FLAG, fix="use --perf_model roofline for it")


def rank_kernels(
    model: ModelArchitecture, tensor: int, precision: Precision, vocabulary: Vocabulary
) -> Mapping[str, Kernel]:
    """Return what computes each operator of one of `tensor` ranks, by the name that `vocabulary` gives it.

    Attention and experts are among them as ``attention`` (or what the vocabulary calls it) and ``moe``. Ranks that
    would hold parts of heads, and one name for two matrices, are a `UserError`.
    """
    check_measurable(model)
    found: dict[str, tuple[Kernel, int]] = {}
    for operator in model_operators(model, Mesh(tensor), precision, vocabulary):
        if operator.kind is OperatorClass.COMMUNICATION or _is_experts(operator):
            continue
        for kernel in _kernels(operator, model, tensor, precision):
            known = found.get(operator.name)
            if known is not None and known[0] != kernel and operator.kind is not OperatorClass.ELEMENTWISE:
                what = f"{operator.name} has two shapes in {model.name}, and a bundle one time for both"
                raise UserError(what, field=FLAG, fix="use --perf_model roofline for it")
            # Of element-wise operators with one name, such as norms, the one that moves most stands for all.
            if known is None or operator.traffic_bytes > known[1]:
                found[operator.name] = (kernel, operator.traffic_bytes)
    result = {name: kernel for name, (kernel, _) in found.items()}
    if model.mixtures:
        result["moe"] = _experts(model)
    return result


def _is_experts(operator: Operator) -> bool:
    return operator.kind is OperatorClass.GROUPED_GEMM or operator.name in INSIDE_EXPERTS


def _kernels(operator: Operator, model: ModelArchitecture, tensor: int, precision: Precision) -> Iterable[Kernel]:
    inputs, outputs = (size * 8 // precision.activation_bits for size in (operator.input_bytes, operator.output_bytes))
    hidden = model.hidden_size
    if operator.kind is OperatorClass.GEMM:
        return [Kernel("linear", (inputs, outputs, int(operator.parameters > inputs * outputs)))]
    if operator.kind is OperatorClass.EMBEDDING:
        positions = 0 if model.embedding_size else model.position_rows
        return [Kernel("embedding", (ceil_div(model.vocab_size, tensor), model.embedding_width, positions))]
    if operator.kind is OperatorClass.SAMPLER:
        return [Kernel("sampler", (ceil_div(model.vocab_size, tensor) * tensor,))]
    if operator.kind is OperatorClass.ATTENTION:
        return {Kernel("attention", _heads(one, tensor, model.name)) for one in _attentions(model)}
    if operator.name in NORMS:
        return [Kernel("layer_norm" if model.norm is NormKind.LAYER else "rms_norm", (hidden,))]
    if operator.name in ACTIVATIONS:
        return [Kernel("gated_activation" if inputs == 2 * outputs else "activation", (outputs,))]
    if operator.name in ("rotary_emb", "rope"):
        return {
            Kernel("rotary", (*_heads(one, tensor, model.name), one.rotary_dim or one.head_dim))
            for one in _attentions(model)
            if one.rotary
        }
    if operator.name == "qk_norm":
        return {Kernel("head_norm", _heads(one, tensor, model.name)) for one in _attentions(model)}
    if operator.name in _SINGLE:
        return [Kernel(_SINGLE[operator.name], (outputs,))]
    raise UserError(f"the profiler has no kernel for {operator.name}", field=FLAG, fix="use --perf_model roofline")


def _attentions(model: ModelArchitecture) -> list[GroupedAttention]:
    return [kind.attention for kind in model.layer_kinds if isinstance(kind.attention, GroupedAttention)]


def _heads(attention: GroupedAttention, tensor: int, name: str) -> tuple[int, int, int]:
    """Return the query heads, KV heads and their size on one of `tensor` ranks."""
    own = attention.share(tensor)
    if own.query % attention.head_dim or own.kv % attention.head_dim or attention.heads % tensor:
        what = (
            f"{name} has {attention.heads} heads and {attention.kv_heads} KV heads, which {tensor} ranks do not share"
        )
        raise UserError(what, field="--tensor", fix="give degrees that divide them")
    heads, kv_heads = own.query // attention.head_dim, own.kv // attention.head_dim
    if heads % kv_heads:
        what = f"{heads} heads of a rank do not share its {kv_heads} KV heads evenly"
        raise UserError(what, field="--tensor", fix="give degrees that divide them")
    return heads, kv_heads, attention.head_dim


def _experts(model: ModelArchitecture) -> Kernel:
    """Return the routed experts, all of them whole on one rank."""
    one = model.mixtures[0]
    return Kernel("experts", (model.hidden_size, one.width, one.count, one.per_token, one.router_outputs))
