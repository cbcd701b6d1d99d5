"""Puts one serving instance together from the settings of a run: model, hardware, memory, scheduler, executor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.backend import Backend, BackendFactory
from converters.lowering import Lowering
from foundation.errors import UserError
from orchestrator.backends import backends
from orchestrator.configurations import Configurations, effective_configurations
from orchestrator.executor import Executor, TraceExecutor
from orchestrator.foresight import Foresight
from orchestrator.instance import Instance
from orchestrator.interfaces import FileInterface, Lower
from orchestrator.kv_memory.paged import KVSpace
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import Place
from orchestrator.settings.decided import decided
from orchestrator.settings.specification import EngineSpec, RunSpec
from orchestrator.stopwatch import Stopwatch
from trace_gen.architecture import ModelArchitecture
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import Hardware, load_hardware
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModel, PerfModelOptions
from trace_gen.precision import Precision


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a run simulates, checked and ready: nothing has been written or started yet.

    `spec` is what was asked for, `engine` the same with all that the model and the device decide.
    """

    spec: RunSpec
    engine: EngineSpec
    model: ModelArchitecture
    hardware: Hardware
    generator: TraceGenerator
    configurations: Configurations
    memory_bytes: int
    space: KVSpace
    scheduler: Scheduler

    @property
    def decided(self) -> RunSpec:
        """The whole run with nothing left open."""
        return replace(self.spec, engines=(self.engine,))

    def start(self, stack: ExitStack, stopwatch: Stopwatch, say: Callable[[str], None]) -> Instance:
        """Return the instance with its backend started; `stack` closes what it opens, and says what was cached."""
        execution, parallelism = self.spec.execution, self.engine.parallelism
        backend = self._backend()
        stack.callback(backend.close)
        stack.callback(_say_statistics, backend, say)
        one_step = execution.trace_dir is not None or execution.interface != "memory"
        executor: Executor = TraceExecutor(
            self.generator.generate,
            self._lower(stack),
            backend,
            mesh=self.generator.mesh,
            max_steps=1 if one_step else execution.macro_steps,
            stopwatch=stopwatch,
        )
        if parallelism.stages > 1 and executor.max_steps > 1 and not self.engine.backend.external:
            executor = Foresight(executor, keep=2 * parallelism.stages)
        checkpoint = self.spec.output.log_interval_ns
        return Instance(self.scheduler, executor, max_steps=execution.macro_steps, checkpoint_ns=checkpoint)

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

    def _start_backend(self, settings: BackendFactory) -> Backend:
        files = self.configurations
        return settings.start(
            network=files.network.to_text(), system=files.system.to_text(), memory=files.memory.to_text()
        )

    def _lower(self, stack: ExitStack) -> Lower:
        execution = self.spec.execution
        lowering = Lowering(
            network_dims=self.configurations.network.npus_count,
            true_work=self.generator.perf_model.latency_source == "backend",
        )
        if execution.trace_dir is not None:
            self.configurations.write(execution.trace_dir)  # what the graphs were made for, and can be simulated with
            return FileInterface(lowering, execution.interface, execution.trace_dir, keep=True)
        if execution.interface != "memory":
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="orrery-")))
            return FileInterface(lowering, execution.interface, folder, keep=False)
        return lowering.lower


def deploy(spec: RunSpec) -> Deployment:
    """Build the deployment; whatever does not fit together is a `UserError`, before anything is written."""
    given = spec.engine
    model, hardware = load_model(given.model.model_name), load_hardware(given.model.hardware)
    engine = decided(given, model, hardware)
    perf_model = _perf_model(engine, model, hardware)
    configurations = effective_configurations(engine, hardware, backend_decides=perf_model.latency_source == "backend")
    generator = _generator(engine, model, perf_model)
    memory_bytes = round((engine.parallelism.npu_mem or 0) * 1e9)
    space = kv_space(generator.memory, memory_bytes, engine.block_size, engine.memory.max_model_len)
    scheduler = engine.scheduling.scheduler(Place(space, model.max_position, engine.parallelism.stages))
    return Deployment(spec, engine, model, hardware, generator, configurations, memory_bytes, space, scheduler)


def kv_space(memory: ModelMemory, memory_bytes: int, block_size: int, max_model_len: int | None) -> KVSpace:
    """Return the KV blocks that fit beside the weights on the tightest stage; none at all is a `UserError`."""
    stages = range(memory.mesh.pipeline)
    weights = memory.max_rank_weight_bytes
    if weights > memory_bytes:
        raise UserError(
            f"{memory.architecture.name} needs {weights / 1e9:.3f} GB an NPU for its weights, "
            f"an NPU has {memory_bytes / 1e9:.3f} GB",
            field="--npu_mem",
            fix="give more memory, more NPUs, or fewer bits (--fp)",
        )
    blocks = min(
        (memory_bytes - memory.weight_bytes(stage)) // (block_size * memory.kv_bytes_per_token(stage))
        for stage in stages
    )
    if blocks < 1:
        raise UserError(
            f"{(memory_bytes - weights) / 1e9:.4f} GB an NPU are left beside the weights of "
            f"{memory.architecture.name}, less than one KV block of {block_size} tokens",
            field="--npu_mem",
            fix="give more memory or a smaller --block_size",
        )
    return KVSpace(blocks, block_size, block_size * memory.kv_bytes_per_token_all_ranks, max_model_len)


def _say_statistics(backend: Backend, say: Callable[[str], None]) -> None:
    """Say what a backend counted, where it counts at all (steps, cache hits, runs of an external program)."""
    count = getattr(backend, "statistics", None)
    counts: dict[str, int] = count() if count is not None else {}
    if counts:
        said = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items())
        say(f"backend: {said}")


def _perf_model(engine: EngineSpec, model: ModelArchitecture, hardware: Hardware) -> PerfModel:
    bandwidth = engine.model.local_bw
    return engine.perf_model.model(
        PerfModelOptions(
            architecture=model,
            hardware=hardware,
            tensor=engine.parallelism.tensor,
            precision=_precision(engine),
            memory_bandwidth=bandwidth * 1e9 if bandwidth else None,
        )
    )


def _generator(engine: EngineSpec, model: ModelArchitecture, perf_model: PerfModel) -> TraceGenerator:
    shared = engine.parallelism
    return TraceGenerator(
        model,
        Mesh(shared.tensor, shared.stages, shared.expert),
        perf_model,
        precision=_precision(engine),
        attention_placement=shared.attention_placement,
    )


def _precision(engine: EngineSpec) -> Precision:
    return Precision(engine.model.bits, engine.model.bits, engine.model.kv_bits)
