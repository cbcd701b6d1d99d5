"""What a run simulates, checked and ready, and how engines are started from it: backend, pricing, schedulers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from converters.backend import Backend, BackendFactory
from converters.lowering import Lowering
from foundation.records import dataclass
from orchestrator.backends import backends
from orchestrator.configurations import Configurations
from orchestrator.engine.engine import Engine
from orchestrator.engine.interface import AnyEngine
from orchestrator.kv_memory.store import KVSpace
from orchestrator.network_cards import bytes_per_s
from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.compiled.covering import traced_because
from orchestrator.pricing.compiled.pricing import CompiledPricing, counted
from orchestrator.pricing.compiled.tables import PriceTables
from orchestrator.pricing.interface import Pricing
from orchestrator.pricing.interfaces import FileInterface, Lower
from orchestrator.pricing.layers import stage_layers
from orchestrator.pricing.traced import TracedPricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import MemoryShare, Place
from orchestrator.settings.specification import EngineSpec, RunSpec
from orchestrator.stopwatch import Stopwatch
from trace_gen.architecture import ModelArchitecture
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import Hardware

if TYPE_CHECKING:
    from orchestrator.cluster.disaggregation import Disaggregation
    from orchestrator.cluster.tiers import Tiers
    from orchestrator.cluster.waves import Waves
    from orchestrator.schedulers.vllm import VllmScheduler
    from trace_gen.adapters import AdapterWork


@dataclass(frozen=True, slots=True)
class Started:
    """Engines ready to run, what moves those that advance in lock step, and what their backend has counted.

    (Steps, cache hits, runs of an external program.)
    """

    engines: Sequence[AnyEngine]
    waves: list[Waves]
    statistics: Callable[[], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Prices:
    """What batches cost: `pricing`, which is `device` (the model on its NPUs) and what comes on top of it.

    `drafts` prices the passes of a model that guesses tokens; `backend_statistics`: what the backend has counted.
    """

    pricing: Pricing
    device: TracedPricing | CompiledPricing
    drafts: TracedPricing | CompiledPricing | None
    backend_statistics: Callable[[], dict[str, int]]

    def statistics(self) -> dict[str, int]:
        """Return what has been counted: by the backend, and, where tables did not do for all, priced iterations."""
        by_tables = [one for one in (self.device, self.drafts) if isinstance(one, CompiledPricing)]
        return {**self.backend_statistics(), **counted(by_tables)}


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
        compiled: bool = False,
    ) -> Started:
        """Return engines with these `numbers`, their one backend started; `stack` closes what it opens.

        `traces`: the folder that every iteration's files are left in; `between`: what engines have between them;
        `tiers`: those of the run, where there are any; `compiled`: as compiled loops (see `engine.compiled.covering`).
        """
        prices = self.prices(stack, stopwatch, traces)
        if compiled and (loops := self._compiled(prices, numbers)):
            return Started(loops, [], lambda: {**prices.statistics(), "engines_in_compiled_loops": len(numbers)})
        pricing, members = prices.pricing, self.engine.parallelism.data
        if members == 1:
            alone = [self._engine(number, pricing, between, tiers) for number in numbers]
            return Started(alone, [], prices.statistics)
        groups = [self._group(numbers[at : at + members], pricing) for at in range(0, len(numbers), members)]
        engines = [member for group in groups for member in group.members]
        return Started(engines, groups, prices.statistics)

    def _compiled(self, prices: Prices, numbers: Sequence[int]) -> list[AnyEngine]:
        """Return the engines with these numbers as compiled loops; none where iterations turn out to be no sums."""
        from orchestrator.engine.compiled.engine import CompiledEngine
        from orchestrator.engine.compiled.pricing import HostTerms, Prepared

        traced = prices.device.traced if isinstance(prices.device, CompiledPricing) else prices.device
        config, graphs = cast("VllmScheduler", self.scheduler).config, self.engine.host.graphs
        tables = PriceTables(self.generator, traced, graphs, config.max_num_batched_tokens, config.max_num_seqs)
        if tables.reason is not None:
            return []
        times = self.engine.host.times(self.engine.scheduling.host)
        launches = tuple(count * times.launch_ns for count in self.generator.launches())
        prepared = Prepared(tables, HostTerms(times, graphs, launches) if times else None)
        schedulers = [cast("VllmScheduler", self.engine.scheduling.scheduler(self.place)) for _ in numbers]
        return [CompiledEngine(one, prepared, number=number) for one, number in zip(schedulers, numbers, strict=True)]

    def prices(self, stack: ExitStack, stopwatch: Stopwatch, traces: Path | None = None) -> Prices:
        """Return how batches of these engines are priced, the backend started; `stack` and `traces` as for `start`."""
        execution, graphs = self.spec.execution, self.engine.host.graphs
        backend = self._backend()
        stack.callback(backend.close)
        lower = self._lower(stack, traces)
        one_step = execution.makes_files or self.generator.routing.by_step

        def device(generator: TraceGenerator) -> TracedPricing | CompiledPricing:
            traced = TracedPricing(
                lambda shapes, step: generator.generate(graphs.padded(shapes), step),
                lower,
                backend,
                mesh=generator.mesh,
                classes=self._classes(),
                max_steps=1 if one_step else execution.steps_at_once,
                stopwatch=stopwatch,
            )
            if self.traced_because is not None:
                return traced
            return CompiledPricing(traced, lambda: PriceTables(generator, traced, graphs))

        own = device(self.generator)
        pricing: Pricing = own
        if self.adapters is not None:
            from orchestrator.pricing.adapters import AdapterPricing

            pricing = AdapterPricing(pricing, self.adapters)
        speculation = self.engine.scheduling.speculation
        drafts = None if self.drafter is None else device(self.drafter)
        if drafts is not None and speculation is not None:
            from orchestrator.pricing.speculative import SpeculativePricing

            pricing = SpeculativePricing(pricing, drafts, speculation)
        times = self.engine.host.times(self.engine.scheduling.host)
        if times:
            from orchestrator.pricing.host import HostPricing

            pricing = HostPricing(pricing, times, graphs, self.generator.launches())
        noise = self.spec.noise
        if noise.jitter_steps:
            from orchestrator.pricing.jittered import JitteredPricing

            pricing = JitteredPricing(pricing, noise.jitter_steps / 100, noise.seed)
        return Prices(pricing, own, drafts, getattr(backend, "statistics", dict))

    @property
    def traced_because(self) -> str | None:
        """Why every iteration is traced and simulated (one clause); None: times come from tables where they can."""
        return traced_because(self.spec.execution, self.engine)

    def _group(self, numbers: Sequence[int], pricing: Pricing) -> Waves:
        """Return the data-parallel engines with these numbers, in lock step."""
        from orchestrator.cluster.waves import Waves
        from orchestrator.engine.member import Member

        steps, policy = self.spec.execution.steps_at_once, self.engine.scheduling
        group = Waves(pricing, max_steps=steps)
        group.admit([Member(policy.scheduler(self.place), group, number=n, max_steps=steps) for n in numbers])
        return group

    def _engine(self, number: int, pricing: Pricing, between: Disaggregation | None, tiers: Tiers | None) -> Engine:
        """Return engine `number`, with a connector to others where there is something between them, or to its tier."""
        steps, policy, tier = self.spec.execution.steps_at_once, self.engine.scheduling, self.engine.tier
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
        steps, policy = self.spec.execution.steps_at_once, self.engine.scheduling
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
        curves = self.configurations.curves
        lowering = Lowering(
            network_dims=self.configurations.network.npus_count,
            true_work=self.generator.perf_model.latency_source == "backend",
            collective_sizes=None if curves is None else curves.sizes,
        )
        if traces is not None:
            self.configurations.write(traces)  # what the graphs were made for, and can be simulated with
            return FileInterface(lowering, execution.interface, traces, keep=True)
        if execution.interface != "memory":
            from tempfile import TemporaryDirectory

            folder = Path(stack.enter_context(TemporaryDirectory(prefix="orrery-")))
            return FileInterface(lowering, execution.interface, folder, keep=False)
        return lowering.lower
