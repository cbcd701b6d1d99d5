"""Quantised checkpoints: how the matrices of their layers are stored, with their scales, and multiplied.

What is read is the `quantization_config` of a config.json, as Hugging Face Transformers and vLLM write and read it:

| `quant_method` | weights | scales | multiplied in |
|---|---|---|---|
| `fp8` | 8 bits | one 32-bit scale a matrix, or a block of `weight_block_size` | fp8 |
| `awq` | 4 bits | 16 bits and a 4-bit zero point for each group of inputs and output | 16 bits |
| `gptq` | 4 or 8 bits | the same; no zero points with `sym`, an index of 32 bits an input with `desc_act` | 16 bits |
| `compressed-tensors` | 4 or 8 bits | a matrix, an output (`channel`), a group, a block | as `input_activations` say |

Embeddings, norms, biases, routers and (unless a config says otherwise) the LM head keep their 16 bits. Of these
methods whatever changes bytes or arithmetic and is not modelled is refused with its field; other methods are refused
altogether. What it costs to quantise activations before a matrix is not modelled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from foundation.errors import UserError
from foundation.fields import Fields
from trace_gen.precision import Arithmetic, ceil_div

PLAIN_ROLES = frozenset({"router", "lm_head", "project_in", "project_out"})
"""Roles with matrices that no method quantises unless it says so."""
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_EXPERTS = ("expert_gate_up_proj", "expert_down_proj")
_SHARED = ("shared_gate_up_proj", "shared_down_proj")
_MLP = ("gate_proj", "up_proj", "down_proj", "fc1", "fc2", *_EXPERTS, *_SHARED)
_NOTHING: tuple[str, ...] = ()
_MODULES: dict[str, tuple[str, ...]] = {
    **{role: (role,) for role in (*_ATTENTION, "fc1", "fc2", "lm_head")},
    **{role: (role, *also) for role, also in (("gate_proj", _EXPERTS[:1]), ("up_proj", _EXPERTS[:1]))},
    "down_proj": ("down_proj", _EXPERTS[1]),
    "qkv_proj": _ATTENTION[:3],
    "gate_up_proj": ("gate_proj", "up_proj"),
    **dict.fromkeys(("self_attn", "attention", "attn"), _ATTENTION),
    **dict.fromkeys(("mlp", "block_sparse_moe", "feed_forward"), _MLP),
    "experts": _EXPERTS,
    **dict.fromkeys(("w1", "w3"), _EXPERTS[:1]),
    "w2": _EXPERTS[1:],
    "shared_expert": _SHARED,
    **dict.fromkeys(("gate", "router", "shared_expert_gate", "embed_tokens", "norm", "wte", "wpe"), _NOTHING),
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm"), _NOTHING),
}
"""What checkpoints call modules -> the roles of their matrices (none: they are never quantised)."""
_LEFT_OUT = ("modules_to_not_convert", "ignored_layers")
"""Fields that list modules which are not quantised."""
_FP8_FIELDS = ("quant_method", "activation_scheme", "fmt", "weight_block_size", "kv_cache_scheme", *_LEFT_OUT)
_AWQ_FIELDS = (
    *("quant_method", "bits", "w_bit", "group_size", "q_group_size", "zero_point", "version", *_LEFT_OUT),
    *("backend", "do_fuse", "exllama_config", "fuse_max_seq_len", "modules_to_fuse"),
)
_GPTQ_FIELDS = (
    *("quant_method", "bits", "group_size", "desc_act", "sym", "lm_head", "dynamic", *_LEFT_OUT),
    *("damp_percent", "static_groups", "true_sequential", "model_name_or_path", "model_file_base_name"),
    *("checkpoint_format", "meta", "quantizer", "dataset", "tokenizer", "batch_size", "backend", "use_cuda_fp16"),
    *("block_name_to_quantize", "cache_block_outputs", "exllama_config", "max_input_length", "model_seqlen"),
    *("module_name_preceding_first_block", "modules_in_block_to_quantize", "pad_token_id", "use_exllama"),
    *("disable_exllama", "is_marlin_format", "damp_auto_increment", "pack_dtype"),
)
_TENSORS_FIELDS = (
    *("quant_method", "config_groups", "ignore", "kv_cache_scheme", "sparsity_config", "transform_config"),
    *("format", "global_compression_ratio", "quantization_status", "version"),
)
"""Every field that a method's configs have; those that change nothing modelled are read over."""
_TOGETHER = (_ATTENTION[:3], ("gate_proj", "up_proj"))
"""Matrices that engines store as one."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the matrices of a checkpoint's layers are stored and multiplied.

    - `bits` a weight; `block`: the inputs and the outputs that share a scale (None: all of them); `scale_bits`,
      `zero_bits`: what is stored for each block; `index_bits`: for each input;
    - `arithmetic`: what they are multiplied in (None: the activations' own width);
    - `plain`: roles whose matrices are not quantised;
    - `kv_bits`: bits of a number in the KV cache, where the checkpoint says (None: it does not);
    - `online`: the engine quantises them as it loads a checkpoint that is not quantised.
    """

    method: str
    bits: int
    block: tuple[int | None, int | None] = (None, None)
    scale_bits: int = 16
    zero_bits: int = 0
    index_bits: int = 0
    arithmetic: Arithmetic | None = None
    plain: frozenset[str] = PLAIN_ROLES
    kv_bits: int | None = None
    online: bool = False

    def covers(self, role: str) -> bool:
        """Whether the matrices of `role` are quantised."""
        return role not in self.plain

    @property
    def described(self) -> str:
        """What is stored and computed, in a few words."""
        done = "the activations' own width" if self.arithmetic is None else self.arithmetic.name
        kept = "" if self.kv_bits is None else f", KV cache in {self.kv_bits} bits"
        how = " while it is loaded" if self.online else ""
        return f"{self.method}{how}, matrices of {self.bits} bits with their scales, multiplied in {done}{kept}"

    def matrix_bytes(self, inputs: int, outputs: int, *, shared: bool = False) -> int:
        """Return the bytes of a matrix with its scales, zero points and indices; `shared`: ranks share its inputs.

        Raises `UserError` where inputs that share a scale do not divide a rank's, which vLLM refuses, too. (Blocks of
        several outputs may be cut at the edge of a matrix, but not where ranks share it.)
        """
        across, along = self.block
        if across and (along == 1 or shared) and inputs % across:
            raise UserError(
                f"groups of {across} inputs share a scale, but a rank has {inputs}, which they do not divide",
                field="quantization_config",
                fix="use fewer tensor-parallel NPUs, or another checkpoint",
            )
        blocks = (ceil_div(inputs, across) if across else 1) * (ceil_div(outputs, along) if along else 1)
        blocks = ceil_div(blocks * (self.scale_bits + self.zero_bits), 8)
        return ceil_div(inputs * outputs * self.bits, 8) + blocks + ceil_div(inputs * self.index_bits, 8)


ONLINE = {"fp8": Quantization("fp8", 8, scale_bits=32, arithmetic=Arithmetic.FP8, online=True)}
"""What vLLM makes of a checkpoint that is not quantised, by its names: one scale a matrix, activations quantised as
they come, everything but linear layers and experts as it is (0.19, vllm/model_executor/layers/quantization/fp8.py)."""


def read_quantization(fields: Fields, num_layers: int | None) -> Quantization | None:
    """Return what the `quantization_config` of a config.json says, if there is one; problems go to `fields`.

    Of an unknown number of layers (None: what the config says of it is wrong) a list of layers is all of them.
    """
    if not fields.has("quantization_config"):
        return None
    config = fields.object("quantization_config")
    method = config.text("quant_method")
    reader = _METHODS.get(method)
    if reader is None:
        if method:
            what, known = f"{method!r} is not modelled", ", ".join(_METHODS)
            config.problem(what, "quant_method", f"supported: {known}, and checkpoints that are not quantised")
        return None
    return reader(config, num_layers)


def _fp8(config: Fields, num_layers: int | None) -> Quantization:
    config.only(_FP8_FIELDS)
    config.choice("activation_scheme", ("dynamic", "static"), default="dynamic")
    config.choice("fmt", ("e4m3",), default="e4m3")
    if config.has("kv_cache_scheme"):
        config.problem("is not modelled", "kv_cache_scheme", "leave it out, and give --kv_cache_dtype fp8")
    shape = config.integers("weight_block_size", low=1)
    if shape and len(shape) != 2:
        config.problem("holds not two numbers", "weight_block_size", "expected the outputs and the inputs of a block")
        shape = ()
    block = (shape[1], shape[0]) if shape else (None, None)
    plain = _plain(config, num_layers)
    return Quantization("fp8", 8, block, scale_bits=32, arithmetic=Arithmetic.FP8, plain=plain)


def _awq(config: Fields, num_layers: int | None) -> Quantization:
    config.only(_AWQ_FIELDS)
    bits = _bits(config, ("bits", "w_bit"), (4,))
    zero_bits = bits if config.boolean("zero_point", default=True) else 0
    block = (_group(config, "group_size", "q_group_size"), 1)
    return Quantization("awq", bits, block, zero_bits=zero_bits, plain=_plain(config, num_layers))


def _gptq(config: Fields, num_layers: int | None) -> Quantization:
    config.only(_GPTQ_FIELDS)
    for name in ("dynamic", "modules_in_block_to_quantize"):
        if config.values.get(name):
            config.problem("is not modelled: all matrices of all layers are quantised alike", name, "leave it out")
    bits = _bits(config, ("bits",), (4, 8))
    plain = _plain(config, num_layers)
    if config.boolean("lm_head", default=False):
        plain -= {"lm_head"}
    return Quantization(
        "gptq",
        bits,
        (_group(config, "group_size"), 1),
        zero_bits=0 if config.boolean("sym", default=True) else bits,
        index_bits=32 if config.boolean("desc_act", default=False) else 0,
        plain=plain,
    )


def _compressed_tensors(config: Fields, num_layers: int | None) -> Quantization:
    config.only(_TENSORS_FIELDS)
    for name in ("sparsity_config", "transform_config"):
        if config.values.get(name) and config.object(name).values.get("format") != "dense":
            config.problem("is not modelled", name, "use a checkpoint without it")
    groups = config.object("config_groups")
    names = list(groups.names())
    if len(names) != 1:
        config.problem(f"{len(names)} groups: matrices that differ are not modelled", "config_groups", "give one")
    group = groups.object(names[0]) if names else groups
    if names and group.texts("targets") != ("Linear",):
        group.problem("is not modelled", "targets", 'expected ["Linear"]')
    if group.has("output_activations"):
        group.problem("is not modelled", "output_activations", "expected null")
    weights = group.object("weights")
    scheme = _tensors(weights, group)
    kept = config.object("kv_cache_scheme")
    kv_bits = _bits(kept, ("num_bits",), (8,)) if config.has("kv_cache_scheme") else None
    return replace(scheme, plain=_plain(config, num_layers, "ignore"), kv_bits=kv_bits)


def _tensors(weights: Fields, group: Fields) -> Quantization:
    """Return what a group of compressed-tensors says of weights and of the activations that meet them."""
    bits = _bits(weights, ("num_bits",), (4, 8))
    kind = weights.choice("type", ("int", "float"))
    if kind == "float" and bits == 4:
        weights.problem("4-bit floating point is not modelled", "type", "expected int")
    strategy = weights.choice("strategy", ("tensor", "channel", "group", "block"))
    block: tuple[int | None, int | None] = {"tensor": (None, None), "channel": (None, 1)}.get(strategy, (None, 1))
    if strategy == "group":
        block = (weights.positive_int("group_size"), 1)
    elif strategy == "block":
        shape = weights.integers("block_structure", low=1)
        block = (shape[1], shape[0]) if len(shape) == 2 else (None, None)
        if len(shape) != 2:
            weights.problem(
                "holds not two numbers", "block_structure", "expected the outputs and the inputs of a block"
            )
    arithmetic = None
    if group.has("input_activations"):
        meets = group.object("input_activations")
        if _bits(meets, ("num_bits",), (8,)) != bits or meets.choice("type", ("int", "float")) != kind:
            meets.problem("activations of another format than the weights are not modelled")
        arithmetic = Arithmetic.FP8 if kind == "float" else Arithmetic.INT8
    symmetric = weights.boolean("symmetric", default=True)
    indexed = weights.text("actorder", default="") == "group"
    return Quantization(
        "compressed-tensors",
        bits,
        block,
        scale_bits=16 if strategy == "group" else 32,
        zero_bits=0 if symmetric else bits,
        index_bits=32 if indexed else 0,
        arithmetic=arithmetic,
    )


_METHODS: dict[str, Callable[[Fields, int | None], Quantization]] = {
    "fp8": _fp8,
    "awq": _awq,
    "gptq": _gptq,
    "compressed-tensors": _compressed_tensors,
}


def _bits(config: Fields, names: tuple[str, ...], known: tuple[int, ...]) -> int:
    bits = config.integer(*names, low=1, high=64)
    if config.sound(*names) and bits not in known:
        expected = " or ".join(map(str, known))
        config.problem(f"{bits} bits are not modelled", next(filter(config.has, names)), f"expected {expected}")
    return bits if bits in known else known[0]


def _group(config: Fields, *names: str) -> int | None:
    """Return the inputs that share a scale; -1 means all of them."""
    size = config.integer(*names, low=-1, default=128)
    if size == 0:
        config.problem("0 is no group", names[0], "give -1 for all inputs of an output")
    return size if size > 0 else None


def _plain(config: Fields, num_layers: int | None, *names: str) -> frozenset[str]:
    """Return the roles that are not quantised: those that never are, and those that the config leaves out."""
    plain = set(PLAIN_ROLES)
    for name in names or _LEFT_OUT:
        listed = config.texts(name)
        layers: dict[str, set[int]] = {}
        for entry in listed:
            module, layer = _module(entry)
            if module not in _MODULES:
                config.problem(f"{entry!r} is not a module that is known", name)
            elif layer is None:
                plain.update(_MODULES[module])
            elif _MODULES[module]:
                layers.setdefault(module, set()).add(layer)
        plain.update(_everywhere(config, name, layers, num_layers))
    for roles in _TOGETHER:
        if 0 < len(plain.intersection(roles)) < len(roles):
            config.problem(f"{', '.join(roles)} are stored as one: leave out all of them or none")
    return frozenset(plain)


def _everywhere(config: Fields, name: str, layers: dict[str, set[int]], num_layers: int | None) -> Iterable[str]:
    """Yield the roles of modules that are left out layer by layer, in every layer; only some are a problem."""
    for module, numbers in layers.items():
        if num_layers is None or numbers >= set(range(num_layers)):
            yield from _MODULES[module]
        else:
            config.problem(f"{module} is left out of {len(numbers)} layers only, which is not modelled", name)


def _module(entry: str) -> tuple[str, int | None]:
    """Return the module that an entry names, and its layer (None: in all): ``model.layers.3.mlp.gate`` is (gate, 3)."""
    parts = [part for part in re.split(r"[.*$^\\()/]+|re:", entry) if part]
    words = [part for part in parts if not part.isdecimal()]
    numbers = [part for part in parts if part.isascii() and part.isdecimal() and len(part) < 7]
    return (words[-1] if words else ""), (int(numbers[0]) if numbers else None)
