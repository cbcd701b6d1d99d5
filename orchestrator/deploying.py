"""Puts engines together from the settings of a run: model, hardware, memory, scheduler, what makes their traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InternalError, UserError
from orchestrator.configurations import Configurations, effective_configurations
from orchestrator.deployed_memory import kv_space, weights_beside
from orchestrator.deployed_tiers import check_windows
from orchestrator.fabrics.choosing import other_machine
from orchestrator.kv_memory.layout import kv_layout
from orchestrator.schedulers.settings import Place
from orchestrator.schedulers.speculation import EAGLE, Speculation
from orchestrator.settings.decided import check_lock_step, decided, device_flag, device_name, machine
from orchestrator.settings.engine import DEFAULT_MODEL, ModelSettings, NetworkSettings, ParallelismSettings
from orchestrator.settings.specification import EngineSpec, RunSpec
from trace_gen.adapters import AdapterWork
from trace_gen.architecture import ModelArchitecture, unquantized
from trace_gen.attention.absorption import Absorption
from trace_gen.drafters import head_of
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import Hardware, load_hardware
from trace_gen.mesh import Mesh
from trace_gen.mlp.routing import BalancedRouting
from trace_gen.mlp.routings import RoutingSettings, routings
from trace_gen.models import load_model, load_onnx_model
from trace_gen.perf_model import PerfModel, PerfModelOptions
from trace_gen.perf_models import PerfModelSettings
from trace_gen.precision import Precision

if TYPE_CHECKING:
    pass
from orchestrator.deployment import Deployment


class Deploying:
    """Deploys engines of one run: files are read once, and what equal settings decide is worked out once."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._load = cache(load_given)
        self._hardware = cache(load_hardware)
        self._perf_model = cache(self._new_perf_model)
        self._generator = cache(self._new_generator)
        self._configurations = cache(self._new_configurations)
        self._like = cache(self._deploy)

    def apart(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine`; data-parallel engines of a dense model share nothing, so they are instances of it."""
        shared = engine.parallelism
        if shared.data == 1 or self._model(engine.model).mixtures:
            return engine
        return replace(
            engine, parallelism=replace(shared, data_parallel_size=None), instances=engine.instances * shared.data
        )

    def deploy(self, engine: EngineSpec) -> Deployment:
        """Return what `engine` needs, the same for all that are like it; however many `instances`, it is one engine.

        What does not fit together is a `UserError`, before anything is written.
        """
        return self._like(replace(engine, instances=1))

    def _deploy(self, given: EngineSpec) -> Deployment:
        asked = given.model
        with _about("--model_name"):
            model = self._model(asked)
        with _about(device_flag(given)):
            hardware = self._hardware(device_name(given))
        engine = decided(given, model, hardware)
        check_lock_step(engine, model)
        unfit = other_machine([one for one in (engine.backend, engine.cross_check) if one is not None])
        shared = engine.parallelism
        configurations = self._configurations(engine.perf_model, engine.model, shared, engine.network, unfit)
        generator = self._generator(engine.perf_model, engine.model, shared, engine.expert_routing)
        npu = machine(engine, model, hardware)
        share = engine.scheduling.memory_share(npu)
        layout = kv_layout(generator.memory, engine.block_size, whole=self._spec.hands_over)
        check_windows(engine, layout)
        drafter = self._drafter(engine, model)
        if drafter is not None:
            layout = layout.beside(kv_layout(drafter.memory, engine.block_size))
        adapters = self._adapters(engine, generator)
        beside = weights_beside(engine, generator, drafter, adapters)
        space = kv_space(generator.memory, layout, npu.memory_bytes, share, engine, beside)
        place = Place(space, layout.groups, model.max_position, engine.parallelism.stages)
        scheduler = engine.scheduling.scheduler(place)
        return Deployment(
            self._spec,
            engine,
            model,
            hardware,
            generator,
            configurations,
            npu.memory_bytes,
            share,
            space,
            place,
            scheduler,
            beside,
            drafter,
            adapters,
        )

    def _model(self, settings: ModelSettings) -> ModelArchitecture:
        name = settings.model_name or DEFAULT_MODEL
        return self._load(name, settings.model_onnx, settings.quantization, settings.mla)

    def _device(self, decided: ModelSettings) -> Hardware:
        """Return the device of settings that are decided."""
        if decided.hardware is None:
            raise InternalError("the settings of the device are not decided")
        return self._hardware(decided.hardware)

    def _adapters(self, engine: EngineSpec, generator: TraceGenerator) -> AdapterWork | None:
        """Return what LoRA adapters cost, where requests are served with some."""
        slots = engine.scheduling.adapter_slots
        if slots is None:
            return None
        timed_by = engine.names["perf_model"]
        if timed_by != "roofline":
            raise UserError(
                f"{timed_by} has no time for LoRA adapters",
                field="--perf_model",
                fix="use roofline, or no --enable_lora",
            )
        return AdapterWork(
            generator.architecture, generator.mesh, generator.perf_model, generator.precision, slots.rank
        )

    def _drafter(self, engine: EngineSpec, model: ModelArchitecture) -> TraceGenerator | None:
        """Return what makes the traces of the model that guesses tokens, on the ranks of the engine's one stage."""
        speculation, shared = engine.scheduling.speculation, engine.parallelism
        if speculation is None or not speculation.has_layers:
            return None
        drafting = self._drafting_model(speculation, model, engine.model)
        return TraceGenerator(
            drafting,
            Mesh(shared.tensor, 1, shared.expert if drafting.mixtures else 1, context=shared.context),
            self._timed(engine.perf_model, engine.model, shared.tensor, drafting),
            precision=_precision(engine.model),
            context_mode=shared.cp_mode,
        )

    def _drafting_model(
        self, speculation: Speculation, model: ModelArchitecture, settings: ModelSettings
    ) -> ModelArchitecture:
        """Return the model that guesses tokens for `model`."""
        if speculation.model is None:
            head = head_of(model, speculation.method)
            return unquantized(head) if speculation.method == EAGLE else head
        given = self._load(speculation.model, None, None, settings.mla)
        if given.vocab_size != model.vocab_size and not speculation.drops_last_hit:
            raise UserError(
                f"{given.name} has {given.vocab_size} token ids, {model.name} {model.vocab_size}",
                field="--speculative_model",
                fix="name a model with the same tokens",
            )
        return replace(given, joins_hidden_state=speculation.drops_last_hit)

    def _new_perf_model(self, chosen: PerfModelSettings, settings: ModelSettings, tensor: int) -> PerfModel:
        return self._timed(chosen, settings, tensor, self._model(settings))

    def _timed(
        self, chosen: PerfModelSettings, settings: ModelSettings, tensor: int, model: ModelArchitecture
    ) -> PerfModel:
        bandwidth = settings.local_bw
        return chosen.model(
            PerfModelOptions(
                architecture=model,
                hardware=self._device(settings),
                tensor=tensor,
                precision=_precision(settings),
                memory_bandwidth=bandwidth * 1e9 if bandwidth else None,
            )
        )

    def _new_configurations(
        self,
        perf_model: PerfModelSettings,
        settings: ModelSettings,
        shared: ParallelismSettings,
        network: NetworkSettings,
        unfit: str,
    ) -> Configurations:
        source = self._perf_model(perf_model, settings, shared.tensor).latency_source
        hardware = self._device(settings)
        decides = source == "backend"
        return effective_configurations(settings, shared, network, hardware, backend_decides=decides, unfit=unfit)

    def _new_generator(
        self,
        perf_model: PerfModelSettings,
        settings: ModelSettings,
        shared: ParallelismSettings,
        chosen: RoutingSettings,
    ) -> TraceGenerator:
        model = self._model(settings)
        name = routings.name_of(type(chosen))
        if not model.mixtures and name != BalancedRouting.name:
            what = f"{name}, but {model.name} has no experts to choose from"
            raise UserError(what, field="--expert_routing", fix="leave it out")
        return TraceGenerator(
            model,
            Mesh(
                shared.tensor,
                shared.stages,
                shared.expert,
                shared.data,
                shared.context,
                layers=shared.layers,
                redundant_experts=shared.redundant_experts,
            ),
            self._perf_model(perf_model, settings, shared.tensor),
            precision=_precision(settings),
            attention_placement=shared.attention_placement,
            expert_exchange=shared.exchange,
            routing=chosen.routing(model, self._spec.workload.seed),
            context_mode=shared.cp_mode,
            sequence_parallel=shared.sequence_parallel,
            host_weight_bytes=round(shared.cpu_offload_gb * 2**30),
        )


@contextmanager
def _about(flag: str) -> Iterator[None]:
    """Have an error of a name that is none, and of no file, say which flag it was given by."""
    try:
        yield
    except UserError as error:
        if error.path is not None or error.field is not None:
            raise
        raise UserError(error.what, fix=error.fix, field=flag) from error


def load_given(name: str, onnx: Path | None, quantization: str | None, mla: Absorption) -> ModelArchitecture:
    """Return the model in the file `onnx`, or that of a name where no file is given."""
    return load_model(name, quantization, mla) if onnx is None else load_onnx_model(onnx, quantization)


def _precision(settings: ModelSettings) -> Precision:
    return Precision(settings.bits, settings.bits, settings.kv_bits)
