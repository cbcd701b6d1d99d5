"""Puts engines together from the settings of a run: model, hardware, memory, scheduler, pricing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from converters.backend import Backend, BackendFactory
from converters.lowering import Lowering
from foundation.errors import InternalError, UserError
from orchestrator.backends import backends
from orchestrator.cluster.disaggregation import Disaggregation
from orchestrator.cluster.tiers import Tiers
from orchestrator.cluster.waves import Waves
from orchestrator.configurations import Configurations, effective_configurations
from orchestrator.deployed_memory import kv_space, weights_beside
from orchestrator.deployed_tiers import check_windows
from orchestrator.engine.engine import Engine
from orchestrator.engine.member import Member
from orchestrator.kv_memory.layout import kv_layout
from orchestrator.kv_memory.store import KVSpace
from orchestrator.network_cards import bytes_per_s
from orchestrator.pricing.adapters import AdapterPricing
from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.interface import Pricing
from orchestrator.pricing.interfaces import FileInterface, Lower
from orchestrator.pricing.layers import stage_layers
from orchestrator.pricing.speculative import SpeculativePricing
from orchestrator.pricing.traced import TracedPricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import MemoryShare, Place
from orchestrator.schedulers.speculation import EAGLE, Speculation
from orchestrator.settings.decided import check_lock_step, decided, device_name, machine
from orchestrator.settings.engine import DEFAULT_MODEL, ModelSettings, NetworkSettings, ParallelismSettings
from orchestrator.settings.specification import EngineSpec, RunSpec
from orchestrator.stopwatch import Stopwatch
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
    from orchestrator.schedulers.vllm import VllmScheduler


@dataclass(frozen=True, slots=True)
class Started:
    """Engines ready to run, what moves those that advance in lock step, and what their backend has counted.

    (Steps, cache hits, runs of an external program.)
    """

    engines: list[Engine]
    waves: list[Waves]
    statistics: Callable[[], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a request can never be served to its end (one clause, both sizes), and what would help."""

    why: str
    fix: str


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """What a run simulates, checked and ready: nothing has been written or started yet.

    `spec` is what was asked for, `engine` the same with all that the model and the device decide. `drafter` makes the
    traces of a model that guesses tokens, if there is one; `adapters` says what LoRA adapters cost, if there are any;
    `beside`: bytes of their weights on each rank, less those that are streamed, by stage.
    """

    spec: RunSpec
    engine: EngineSpec
    model: ModelArchitecture
    hardware: Hardware
    generator: TraceGenerator
    configurations: Configurations
    memory_bytes: int
    share: MemoryShare
    space: KVSpace
    place: Place
    scheduler: Scheduler
    beside: tuple[int, ...]
    drafter: TraceGenerator | None = None
    adapters: AdapterWork | None = None

    def system(self, count: int | None = None) -> str:
        """Return the hardware of `count` such engines (None: of one, or one group) and how it is used, in few words."""
        shared = self.engine.parallelism
        count = count or shared.data
        groups = count // shared.data
        layout = f"{groups} x {shared.layout}" if groups > 1 else shared.layout
        return f"{count * shared.npus} x {self.hardware.name} ({layout})"

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights on the fullest NPU, those of a drafter and of adapters' slots included."""
        memory = self.generator.memory
        return max(map(sum, zip(map(memory.weight_bytes, range(memory.mesh.pipeline)), self.beside, strict=True)))

    @property
    def computes_prompts(self) -> bool:
        """Whether requests come with prompts that are still to be computed."""
        return not getattr(self.engine.scheduling, "gen", False)

    def start(
        self,
        stack: ExitStack,
        stopwatch: Stopwatch,
        numbers: Sequence[int] = (0,),
        *,
        traces: Path | None = None,
        between: Disaggregation | None = None,
        tiers: Tiers | None = None,
    ) -> Started:
        """Return engines with these `numbers`, their one backend started; `stack` closes what it opens.

        `traces`: the folder that every iteration's files are left in; `between`: what engines have between them;
        `tiers`: those of the run, where there are any.
        """
        execution = self.spec.execution
        backend = self._backend()
        stack.callback(backend.close)
        files = traces is not None or execution.interface != "memory"
        one_step = files or self.generator.routing.by_step
        lower = self._lower(stack, traces)

        def priced(generator: TraceGenerator) -> TracedPricing:
            return TracedPricing(
                generator.generate,
                lower,
                backend,
                mesh=generator.mesh,
                classes=self._classes(),
                max_steps=1 if one_step else execution.macro_steps,
                stopwatch=stopwatch,
            )

        pricing: Pricing = priced(self.generator)
        if self.adapters is not None:
            pricing = AdapterPricing(pricing, self.adapters)
        speculation = self.engine.scheduling.speculation
        if self.drafter is not None and speculation is not None:
            pricing = SpeculativePricing(pricing, priced(self.drafter), speculation)
        members = self.engine.parallelism.data
        if members == 1:
            engines = [self._engine(number, pricing, between, tiers) for number in numbers]
            return Started(engines, [], getattr(backend, "statistics", dict))
        groups = [self._group(numbers[at : at + members], pricing) for at in range(0, len(numbers), members)]
        engines = [member for group in groups for member in group.members]
        return Started(engines, groups, getattr(backend, "statistics", dict))

    def _group(self, numbers: Sequence[int], pricing: Pricing) -> Waves:
        """Return the data-parallel engines with these numbers, in lock step."""
        steps, policy = self.spec.execution.macro_steps, self.engine.scheduling
        group = Waves(pricing, max_steps=steps)
        group.admit([Member(policy.scheduler(self.place), group, number=n, max_steps=steps) for n in numbers])
        return group

    def _engine(self, number: int, pricing: Pricing, between: Disaggregation | None, tiers: Tiers | None) -> Engine:
        """Return engine `number`, with a connector to others where there is something between them, or to its tier."""
        steps, policy, tier = self.spec.execution.macro_steps, self.engine.scheduling, self.engine.tier
        if between is not None:
            return self._peer(number, pricing, between)
        if tiers is None or not tier.given:
            return Engine(policy.scheduler(self.place), pricing, number=number, max_steps=steps)
        if policy.swaps:
            moves = tiers.swapping(number, tier)
            return Engine(policy.scheduler(self.place), pricing, number=number, max_steps=steps, moves=moves)
        sizes = {"block_size": self.space.block_size, "block_bytes": self.space.block_bytes}
        connector = tiers.connector(number, tier, self._contents, **sizes)
        scheduler = policy.scheduler(replace(self.place, connector=connector))
        engine = Engine(scheduler, pricing, number=number, max_steps=steps)
        tiers.bind(connector, engine, cast("VllmScheduler", scheduler))
        return engine

    @property
    def _contents(self) -> tuple[object, ...]:
        """What must be the same of two engines for KV cache of the same tokens to be the same, layout included."""
        given, shared = self.engine.model, self.engine.parallelism
        model = self.model.name, given.model_onnx, given.bits, given.quantization, given.kv_bits
        return (*model, self.space.block_size, shared.layout)

    def _peer(self, number: int, pricing: Pricing, between: Disaggregation) -> Engine:
        """Return engine `number` with a connector to others."""
        steps, policy = self.spec.execution.macro_steps, self.engine.scheduling
        peer = between.peer(
            number,
            self.engine.role,
            block_size=self.space.block_size,
            block_bytes=self.space.block_bytes,
            bytes_per_s=bytes_per_s(self.spec, self.engine),
            layers=lambda batch: stage_layers(self.generator.generate([batch.shape()], batch.serial)),
        )
        scheduler = policy.scheduler(replace(self.place, connector=peer))
        engine = Engine(scheduler, pricing, number=number, max_steps=steps, hands_over=peer.hands_over)
        peer.bind(engine, cast("VllmScheduler", scheduler))
        return engine

    def admission(self, request: Request) -> Admission:
        """Return how `request` enters: with `gen` its prompt counts as computed already."""
        return Admission(request, 0 if self.computes_prompts else request.prompt_tokens)

    def refuses(self, request: Request) -> Unfit | None:
        """Return why `request` can never be served to its end, or None; what is turned away at the door need not."""
        return None if self.scheduler.rejects(request) else self.unfit(request)

    def unfit(self, request: Request) -> Unfit | None:
        """Return why `request` does not fit, or None; where it does, all that are no longer do."""
        made = 1 if self.engine.role == "prefill" else request.output_tokens
        peak = self.admission(request).peak_tokens(made)
        why = self.scheduler.unfit(request, peak)
        if why is None:
            return None
        longest = self.engine.memory.max_model_len
        if longest is not None and peak > longest:
            return Unfit(why, "give a larger --max_model_len")
        return Unfit(why, "give more memory (--npu_mem, --npu_num)")

    def _backend(self) -> Backend:
        engine = self.engine
        first = self._start_backend(engine.backend)
        if engine.cross_check is None:
            return first
        from external.cross_check import CrossCheckedBackend

        try:
            second = self._start_backend(engine.cross_check)
        except BaseException:
            first.close()
            raise
        names = (backends.name_of(type(engine.backend)), backends.name_of(type(engine.cross_check)))
        work_dir = getattr(engine.cross_check, "work_dir", None) or getattr(engine.backend, "work_dir", None)
        return CrossCheckedBackend(first, second, names=names, files=self.configurations.texts(), work_dir=work_dir)

    def _classes(self) -> WorkClasses:
        memory = self.configurations.memory
        return WorkClasses(
            lambda sizes: memory.remote_mem_latency + sizes // max(1, memory.remote_mem_bw),
            backend_decides=self.generator.perf_model.latency_source == "backend",
            streams=bool(self.generator.streamed.operators),
        )

    def _start_backend(self, settings: BackendFactory) -> Backend:
        files = self.configurations
        return settings.start(
            network=files.network.to_text(), system=files.system.to_text(), memory=files.memory.to_text()
        )

    def _lower(self, stack: ExitStack, traces: Path | None) -> Lower:
        execution = self.spec.execution
        lowering = Lowering(
            network_dims=self.configurations.network.npus_count,
            true_work=self.generator.perf_model.latency_source == "backend",
        )
        if traces is not None:
            self.configurations.write(traces)  # what the graphs were made for, and can be simulated with
            return FileInterface(lowering, execution.interface, traces, keep=True)
        if execution.interface != "memory":
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="orrery-")))
            return FileInterface(lowering, execution.interface, folder, keep=False)
        return lowering.lower


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
        with _about("--node" if asked.hardware is None and given.network.node is not None else "--hardware"):
            hardware = self._hardware(device_name(given))
        engine = decided(given, model, hardware)
        check_lock_step(engine, model)
        configurations = self._configurations(engine.perf_model, engine.model, engine.parallelism, engine.network)
        generator = self._generator(engine.perf_model, engine.model, engine.parallelism, engine.expert_routing)
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
    ) -> Configurations:
        source = self._perf_model(perf_model, settings, shared.tensor).latency_source
        hardware = self._device(settings)
        return effective_configurations(settings, shared, network, hardware, backend_decides=source == "backend")

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
            expert_exchange=shared.expert_exchange,
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
