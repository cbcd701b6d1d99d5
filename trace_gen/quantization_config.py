"""The `quantization_config` of a config.json, as Hugging Face Transformers and vLLM write and read it.

| `quant_method` | weights | scales | multiplied in |
|---|---|---|---|
| `fp8` | 8 bits | one 32-bit scale a matrix, or a block of `weight_block_size` | fp8 |
| `awq` | 4 bits | 16 bits and a 4-bit zero point for each group of inputs and output | 16 bits |
| `gptq` | 4 or 8 bits | the same; no zero points with `sym`, an index of 32 bits an input with `desc_act` | 16 bits |
| `mxfp4` | 4 bits, of experts alone | 8 bits for each 32 inputs and output | 16 bits |
| `compressed-tensors` | 4 or 8 bits | a matrix, an output (`channel`), a group, a block | as `input_activations` say |

The last may divide the matrices into groups that are stored differently, by layers and modules. Embeddings, norms,
biases, routers and (unless a config says otherwise) the LM head keep their 16 bits, and so do modules that a config
leaves out, in all layers or in some. Whatever changes bytes or arithmetic and is not modelled is refused with its
field; other methods are refused altogether. What it costs to quantise activations before a matrix is not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.precision import Arithmetic
from trace_gen.quantization import EXPERTS, QUANTIZED_ROLES, Quantization, Scheme, Stored
from trace_gen.quantized_modules import named_roles

_LEFT_OUT = ("modules_to_not_convert", "ignored_layers")
"""Fields that list modules which are not quantised."""
_FP8_FIELDS = ("quant_method", "activation_scheme", "fmt", "weight_block_size", "kv_cache_scheme", *_LEFT_OUT)
_MXFP4_FIELDS = ("quant_method", *_LEFT_OUT)
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
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj"))
"""Matrices that engines store as one."""


def read_quantization(fields: Fields, num_layers: int | None) -> Quantization | None:
    """Return what the `quantization_config` of a config.json says, if there is one; problems go to `fields`.

    `num_layers` is None where what the config says of it is wrong.
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
    found = reader(config)
    _check_together(config, found, num_layers)
    return found


def _fp8(config: Fields) -> Quantization:
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
    return _of_all(config, "fp8", Scheme(8, block, scale_bits=32, arithmetic=Arithmetic.FP8))


def _awq(config: Fields) -> Quantization:
    config.only(_AWQ_FIELDS)
    bits = _bits(config, ("bits", "w_bit"), (4,))
    zero_bits = bits if config.boolean("zero_point", default=True) else 0
    block = (_group(config, "group_size", "q_group_size"), 1)
    return _of_all(config, "awq", Scheme(bits, block, zero_bits=zero_bits))


def _gptq(config: Fields) -> Quantization:
    config.only(_GPTQ_FIELDS)
    for name in ("dynamic", "modules_in_block_to_quantize"):
        if config.values.get(name):
            config.problem("is not modelled: all matrices of all layers are quantised alike", name, "leave it out")
    bits = _bits(config, ("bits",), (4, 8))
    scheme = Scheme(
        bits,
        (_group(config, "group_size"), 1),
        zero_bits=0 if config.boolean("sym", default=True) else bits,
        index_bits=32 if config.boolean("desc_act", default=False) else 0,
    )
    head = frozenset({"lm_head"} if config.boolean("lm_head", default=False) else ())
    return _of_all(config, "gptq", scheme, QUANTIZED_ROLES | head)


def _mxfp4(config: Fields) -> Quantization:
    """Microscaling 4-bit floating point (Open Compute Project, MX specification 1.0), of experts alone."""
    config.only(_MXFP4_FIELDS)
    return _of_all(config, "mxfp4", Scheme(4, (32, 1), scale_bits=8, whole_blocks=True), frozenset(EXPERTS))


def _of_all(config: Fields, method: str, scheme: Scheme, roles: frozenset[str] = QUANTIZED_ROLES) -> Quantization:
    """Return `scheme` for all matrices of `roles` but those that the config leaves out; an LM head it names is in."""
    named_head = frozenset({"lm_head"}) & roles
    left_out = [entry for name in _LEFT_OUT for entry in _modules(config, name, None)]
    stored = [Stored(roles, scheme), *left_out]
    return _quantization(method, [*stored, *([Stored(named_head, scheme)] if named_head else [])])


def _quantization(method: str, stored: Sequence[Stored], kv_bits: int | None = None) -> Quantization:
    """Return `stored` without what is said of matrices that are not quantised anyway."""
    covered = frozenset[str]().union(*(entry.roles for entry in stored if entry.scheme is not None))
    told = [replace(entry, roles=entry.roles & covered) for entry in stored if entry.roles & covered]
    return Quantization(method, tuple(told), kv_bits)


def _compressed_tensors(config: Fields) -> Quantization:
    config.only(_TENSORS_FIELDS)
    for name in ("sparsity_config", "transform_config"):
        if config.values.get(name) and config.object(name).values.get("format") != "dense":
            config.problem("is not modelled", name, "use a checkpoint without it")
    groups = config.object("config_groups")
    stored = [entry for name in groups.names() for entry in _tensor_group(groups.object(name))]
    if not list(groups.names()):
        config.problem("no groups", "config_groups", "say how matrices are stored")
    if sum(entry.roles == QUANTIZED_ROLES for entry in stored) > 1:
        config.problem("several groups target Linear", "config_groups", "name the modules of all but one")
    # What is said of all linear layers gives way to what is said of some of them.
    stored.sort(key=lambda entry: entry.roles != QUANTIZED_ROLES or entry.layers is not None)
    kept = config.object("kv_cache_scheme")
    kv_bits = _bits(kept, ("num_bits",), (8,)) if config.has("kv_cache_scheme") else None
    return _quantization("compressed-tensors", [*stored, *_modules(config, "ignore", None)], kv_bits)


def _tensor_group(group: Fields) -> Iterator[Stored]:
    """Yield what a group says of the matrices that it targets: all linear layers, or modules by name."""
    scheme = _tensors(group.object("weights"), group)
    if group.has("output_activations"):
        group.problem("is not modelled", "output_activations", "expected null")
    targets = group.texts("targets")
    if targets == ("Linear",):
        yield Stored(QUANTIZED_ROLES, scheme)
    elif not targets or "Linear" in targets:
        group.problem("is not modelled", "targets", 'expected ["Linear"], or names of modules')
    else:
        yield from _modules(group, "targets", scheme)


def _tensors(weights: Fields, group: Fields) -> Scheme:
    """Return what a group of compressed-tensors says of weights and of the activations that meet them."""
    bits = _bits(weights, ("num_bits",), (4, 8))
    kind = weights.choice("type", ("int", "float"))
    if kind == "float" and bits == 4:
        return _narrow_float(weights, group)
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
    symmetric = weights.boolean("symmetric", default=True)
    indexed = weights.text("actorder", default="") == "group"
    return Scheme(
        bits,
        block,
        scale_bits=16 if strategy == "group" else 32,
        zero_bits=0 if symmetric else bits,
        index_bits=32 if indexed else 0,
        arithmetic=_met(group, bits, kind),
    )


def _met(group: Fields, bits: int, kind: str) -> Arithmetic | None:
    """Return what weights are multiplied in: the format of the 8-bit activations that meet them, if any do.

    8-bit weights meet activations of their own format, 4-bit ones are widened to either.
    """
    if not group.has("input_activations"):
        return None
    meets = group.object("input_activations")
    width, own = _bits(meets, ("num_bits",), (8,)), meets.choice("type", ("int", "float"))
    if bits == width and own != kind and meets.sound("type"):
        meets.problem("activations of another format than the weights are not modelled")
    return Arithmetic.FP8 if own == "float" else Arithmetic.INT8


def _narrow_float(weights: Fields, group: Fields) -> Scheme:
    """Return 4-bit floating point with 8-bit scales: mxfp4 (groups of 32) or nvfp4 (of 16, and 32 bits a matrix).

    Activations are 16 bits: the arithmetic of 4 bits is not modelled.
    """
    if group.has("input_activations"):
        group.problem("activations beside 4-bit floating point are not modelled", "input_activations", "expected null")
    strategy = weights.choice("strategy", ("group", "tensor_group"))
    size = weights.positive_int("group_size")
    expected = {"group": 32, "tensor_group": 16}[strategy]
    if weights.sound("strategy", "group_size") and size != expected:
        weights.problem(f"groups of {size} in 4-bit floating point", "group_size", f"expected {expected}")
    matrix_bits = 32 if strategy == "tensor_group" else 0
    return Scheme(4, (expected, 1), scale_bits=8, matrix_bits=matrix_bits, whole_blocks=strategy == "group")


_METHODS: dict[str, Callable[[Fields], Quantization]] = {
    "fp8": _fp8,
    "awq": _awq,
    "gptq": _gptq,
    "mxfp4": _mxfp4,
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


def _modules(config: Fields, name: str, scheme: Scheme | None) -> Iterator[Stored]:
    """Yield that the modules which the field `name` lists have `scheme`: everywhere, or in the layers that it names."""
    layers: dict[frozenset[str], set[int]] = {}
    for entry in config.texts(name):
        for module, roles, layer in named_roles(entry):
            if roles is None:
                config.problem(f"{module or entry!r} is not a module that is known", name)
            elif layer is None:
                yield Stored(roles, scheme)
            else:
                layers.setdefault(roles, set()).add(layer)
    for roles, numbers in layers.items():
        yield Stored(roles, scheme, frozenset(numbers))


def _check_together(config: Fields, found: Quantization, num_layers: int | None) -> None:
    """Report matrices that engines store as one, but that the config stores differently in some layer."""
    named = {number for entry in found.stored for number in entry.layers or ()}
    for layer in (None, *sorted(named & set(range(num_layers or 0)))):
        schemes = dict(found.schemes(layer))
        for roles in _TOGETHER:
            if len({schemes.get(role) for role in roles}) > 1:
                where = "" if layer is None else f" in layer {layer}"
                config.problem(f"{', '.join(roles)} are stored as one{where}: leave out all of them or none")
                return
