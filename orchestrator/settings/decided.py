"""An engine's settings with all that the model and the device decide: what a run is simulated with, and records."""

from __future__ import annotations

from dataclasses import replace

from foundation.errors import UserError
from orchestrator.cluster.nodes import load_node
from orchestrator.fabrics.reading import load_fabric
from orchestrator.schedulers.settings import Machine
from orchestrator.settings.engine import (
    DEFAULT_HARDWARE,
    DTYPES,
    KV_DTYPES,
    MemorySettings,
    ModelSettings,
    ParallelismSettings,
)
from orchestrator.settings.specification import EngineSpec
from trace_gen.architecture import ModelArchitecture
from trace_gen.hardware import Hardware
from trace_gen.perf_models import NamesDevice
from trace_gen.quantization import ONLINE


def decided(engine: EngineSpec, model: ModelArchitecture, hardware: Hardware) -> EngineSpec:
    """Return `engine` with nothing left open; deciding again changes nothing. Raises `UserError`."""
    shows = hardware.driver_memory_bytes if engine.scheduling.sees_driver_memory else hardware.memory_bytes
    made = replace(
        engine,
        model=_numbers(engine.model, model).decided(device_name(engine), hardware.memory_bandwidth),
        parallelism=_parallelism(engine, model).decided(shows),
        network=engine.network.decided(hardware.link_bandwidth, hardware.link_latency_ns, _fabric(engine, hardware)),
        memory=_memory(engine, model),
        tier=engine.tier.decided(engine.parallelism.npus),
    )
    scheduling = engine.scheduling.decided(machine(made, model, hardware))
    return replace(made, scheduling=scheduling, host=engine.host.decided(scheduling.host))


def check_lock_step(engine: EngineSpec, model: ModelArchitecture) -> None:
    """Raise a `UserError` unless the data-parallel engines of a mixture of experts can advance in lock step."""
    shared = engine.parallelism
    if shared.data == 1:
        return
    what, fix = "", ""
    if shared.expert == 1:
        what = f"{shared.data} engines, of which each would hold all experts of {model.name}"
        fix = "give --enable_expert_parallel, or --instances for engines that share nothing"
    elif not engine.scheduling.lock_step:
        what = f"{engine.names['scheduling']} does not make passes in lock step, as {shared.data} engines would"
        fix = "give --scheduling vllm, or --instances for engines that share nothing"
    elif engine.role != "both":
        what, fix = f"{shared.data} engines in lock step serve requests from prompt to end", "leave --role out"
    elif engine.scheduling.speculation is not None:
        what, fix = f"{shared.data} engines in lock step have no drafters", "leave --speculative_method out"
    elif engine.tier.given:
        raise UserError(
            f"{engine.tier.kv_tier}, of which {shared.data} engines in lock step know nothing",
            field="--kv_tier",
            fix="leave it out, or --data_parallel_size",
        )
    elif shared.attention_placement == "requests":
        what, fix = f"{shared.data} engines in lock step spread attention by heads", "give --attention_placement heads"
    elif shared.context > 1:
        # Prompts and decodes have unequal numbers of collectives over a context, and ASTRA-sim matches them by number.
        what, fix = f"{shared.data} engines in lock step divide no sequences", "leave --cp_size out"
    if what:
        raise UserError(what, field="--data_parallel_size", fix=fix)


def device_name(engine: EngineSpec) -> str:
    """Return what `--hardware` takes for an engine's device.

    What was asked for goes before the node's device, that before the one whose measured times are looked up, and that
    before the default.
    """
    if engine.model.hardware is not None:
        return engine.model.hardware
    if engine.network.node is not None:
        return load_node(engine.network.node).hardware
    measured = engine.perf_model.device() if isinstance(engine.perf_model, NamesDevice) else None
    return DEFAULT_HARDWARE if measured is None else measured


def device_flag(engine: EngineSpec) -> str:
    """Return the flag that names an engine's device, by which an error can name it."""
    if engine.model.hardware is None and engine.network.node is not None:
        return "--node"
    named = engine.model.hardware is None and isinstance(engine.perf_model, NamesDevice)
    return "--profile_dir" if named else "--hardware"


def _fabric(engine: EngineSpec, hardware: Hardware) -> str | None:
    """Return the fabric that NPUs of a stage are joined by: their node's, or the device's where there is no node."""
    if engine.parallelism.stage_size == 1:
        return None
    if engine.network.node is not None:
        return load_node(engine.network.node).fabric
    if hardware.fabric is None:
        return None
    try:
        load_fabric(hardware.fabric)
    except UserError as error:
        raise UserError(error.what, field=f"fabric of {hardware.name}", fix=error.fix, path=error.path) from error
    return hardware.fabric


def machine(engine: EngineSpec, model: ModelArchitecture, hardware: Hardware) -> Machine:
    """Return what a policy decides by, of an engine whose memory and longest sequence are decided."""
    return Machine(
        device=hardware.device,
        memory_bytes=round((engine.parallelism.npu_mem or 0) * 1e9),
        tensor=engine.parallelism.tensor,
        model=model,
        max_model_len=engine.memory.max_model_len or model.max_position,
        stages=engine.parallelism.stages,
    )


def _numbers(given: ModelSettings, model: ModelArchitecture) -> ModelSettings:
    """Return the widths of numbers; a quantised checkpoint decides its own weights, and maybe its KV cache.

    What a file says of its numbers holds where nothing else is asked for.
    """
    if given.mla != "auto" and model.absorption is None:
        said = f"{given.mla}, but {model.name} has no latent attention"
        raise UserError(said, field="--mla", fix="leave it out")
    quantized = model.quantization
    width = DTYPES["auto"]
    if model.bits is not None and not (quantized is not None and quantized.online):
        width = model.bits
        if given.fp is None and given.dtype in (None, "auto"):
            given = replace(given, fp=width, dtype=None)
    method = None if quantized is None else quantized.method
    if given.quantization not in (None, method):
        raise UserError(
            f"{given.quantization}, but the checkpoint of {model.name} is {method or 'not quantised'}",
            field="--quantization",
            fix="leave it out, or name such a checkpoint" + ("" if quantized else f", or give {' or '.join(ONLINE)}"),
        )
    if quantized is None:
        return given
    if not quantized.online:
        given = replace(given, quantization=None)  # it says no more than the checkpoint
    if given.bits != width:
        raise UserError(
            f"{given.bits} bits for {model.name}, whose weights are quantised ({quantized.method}) to {quantized.bits}",
            field="--dtype" if given.dtype else "--fp",
            fix="leave it out: quantisation decides" if quantized.online else "leave it out: the checkpoint decides",
        )
    if given.kv_cache_dtype == "auto" and quantized.kv_bits == KV_DTYPES["fp8"]:
        return replace(given, kv_cache_dtype="fp8")
    return given


def _parallelism(engine: EngineSpec, model: ModelArchitecture) -> ParallelismSettings:
    """Return how the NPUs share the model; more of them than can have a part of it are refused."""
    shared = engine.parallelism
    if shared.tensor > model.hidden_size:
        raise UserError(
            f"{shared.tensor} NPUs would share {model.hidden_size} columns of {model.name}",
            field="--npu_num",
            fix=f"give at most {model.hidden_size} a stage",
        )
    if shared.stages > model.num_layers:
        raise UserError(
            f"{shared.stages} pipeline stages for the {model.num_layers} layers of {model.name}",
            field="--npu_group",
            fix=f"give at most {model.num_layers}",
        )
    return shared


def _memory(engine: EngineSpec, model: ModelArchitecture) -> MemorySettings:
    longest = engine.memory.max_model_len
    if engine.scheduling.ends_at_longest:
        if longest is not None and longest > model.max_position:
            raise UserError(
                f"{longest} tokens, {model.name} takes {model.max_position}",
                field="--max_model_len",
                fix=f"give at most {model.max_position}",
            )
        longest = longest or model.max_position
    return replace(engine.memory, block_size=engine.block_size, max_model_len=longest)
