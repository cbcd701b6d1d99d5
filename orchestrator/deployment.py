"""Puts one serving instance together from the settings of a run: model, hardware, memory, scheduler, executor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.lowering import Lowering
from foundation.errors import UserError
from orchestrator.backend import EMBEDDED, Backend, backends
from orchestrator.config import RunConfig
from orchestrator.configurations import Configurations, effective_configurations
from orchestrator.executor import Executor, TraceExecutor
from orchestrator.foresight import Foresight
from orchestrator.instance import Instance
from orchestrator.interfaces import FileInterface, Lower
from orchestrator.kv_memory.paged import KVSpace
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import PolicySettings, policies
from orchestrator.stopwatch import Stopwatch
from trace_gen.architecture import ModelArchitecture
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import Hardware, load_hardware
from trace_gen.memory_layout import MemoryLayout
from trace_gen.models import load_model
from trace_gen.parallelism import Parallelism
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.sharding import Precision


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a run simulates, checked and ready: nothing has been written or started yet."""

    config: RunConfig
    model: ModelArchitecture
    hardware: Hardware
    generator: TraceGenerator
    configurations: Configurations
    memory_bytes: int
    space: KVSpace
    scheduler: Scheduler

    def start(self, stack: ExitStack, stopwatch: Stopwatch, say: Callable[[str], None]) -> Instance:
        """Return the instance with its backend started; `stack` closes what it opens, and says what was cached."""
        config = self.config
        backend = self._backend()
        stack.callback(backend.close)
        stack.callback(_say_statistics, backend, say)
        one_step = config.trace_dir is not None or config.interface != "memory"
        executor: Executor = TraceExecutor(
            self.generator.generate,
            self._lower(stack),
            backend,
            tensor=config.tensor,
            stages=config.stages,
            max_steps=1 if one_step else config.macro_steps,
            stopwatch=stopwatch,
        )
        if config.stages > 1 and executor.max_steps > 1 and config.backend == EMBEDDED:
            executor = Foresight(executor, keep=2 * config.stages)
        return Instance(self.scheduler, executor, max_steps=config.macro_steps, checkpoint_ns=config.log_interval_ns)

    def _backend(self) -> Backend:
        first = self._make_backend(self.config.backend)
        if self.config.cross_check is None:
            return first
        from external.cross_check import CrossCheckedBackend

        try:
            second = self._make_backend(self.config.cross_check)
        except BaseException:
            first.close()
            raise
        names = (self.config.backend, self.config.cross_check)
        return CrossCheckedBackend(
            first, second, names=names, files=self.configurations.texts(), work_dir=self.config.work_dir
        )

    def _make_backend(self, name: str) -> Backend:
        texts = self.configurations
        return backends.get(name, field="--backend")(
            network=texts.network.to_text(),
            system=texts.system.to_text(),
            memory=texts.memory.to_text(),
            options=backend_options(self.config, name),
        )

    def _lower(self, stack: ExitStack) -> Lower:
        config = self.config
        lowering = Lowering(
            network_dims=self.configurations.network.npus_count, true_work=config.perf_model_name == "backend"
        )
        if config.trace_dir is not None:
            return FileInterface(lowering, config.interface, config.trace_dir, keep=True)
        if config.interface != "memory":
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="orrery-")))
            return FileInterface(lowering, config.interface, folder, keep=False)
        return lowering.lower


def deploy(config: RunConfig) -> Deployment:
    """Build the deployment; whatever does not fit together is a `UserError`, before anything is written."""
    model, hardware = load_model(config.model_name), load_hardware(config.hardware)
    configurations = effective_configurations(config, hardware)
    generator = _generator(config, model, hardware)
    memory_bytes = round(config.npu_mem * 1e9) if config.npu_mem else hardware.memory_bytes
    space = kv_space(generator.layout, memory_bytes, config.kv_block_size, config.max_model_len)
    scheduler = policies.get(config.scheduling, field="--scheduling")(_policy_settings(config, space, model))
    return Deployment(config, model, hardware, generator, configurations, memory_bytes, space, scheduler)


def kv_space(layout: MemoryLayout, memory_bytes: int, block_size: int, max_model_len: int | None) -> KVSpace:
    """Return the KV blocks that fit beside the weights on the tightest stage; none at all is a `UserError`."""
    stages = range(layout.parallelism.pipeline)
    weights = layout.max_rank_weight_bytes
    if weights > memory_bytes:
        raise UserError(
            f"{layout.architecture.name} needs {weights / 1e9:.3f} GB an NPU for its weights, "
            f"an NPU has {memory_bytes / 1e9:.3f} GB",
            field="--npu_mem",
            fix="give more memory, more NPUs, or fewer bits (--fp)",
        )
    blocks = min(
        (memory_bytes - layout.weight_bytes(stage)) // (block_size * layout.kv_bytes_per_token(stage))
        for stage in stages
    )
    if blocks < 1:
        raise UserError(
            f"{(memory_bytes - weights) / 1e9:.4f} GB an NPU are left beside the weights of "
            f"{layout.architecture.name}, less than one KV block of {block_size} tokens",
            field="--npu_mem",
            fix="give more memory or a smaller --block_size",
        )
    return KVSpace(blocks, block_size, block_size * layout.kv_bytes_per_token_all_ranks, max_model_len)


def _say_statistics(backend: Backend, say: Callable[[str], None]) -> None:
    """Say what a backend counted, where it counts at all (steps, cache hits, runs of an external program)."""
    count = getattr(backend, "statistics", None)
    counts: dict[str, int] = count() if count is not None else {}
    if counts:
        said = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items())
        say(f"backend: {said}")


def backend_options(config: RunConfig, name: str) -> dict[str, str]:
    """Return the options of the backend called `name`, from the flags that are given."""
    options = {
        "num_queues_per_dim": str(config.num_queues_per_dim),
        "injection_scale": str(config.injection_scale),
        "rendezvous_protocol": str(config.rendezvous_protocol).lower(),
    }
    if name == EMBEDDED:
        return {**options, "congestion": config.congestion}
    names = ("astra_sim", "astra_sim_image", "spool_dir", "cache_dir", "work_dir", "backend_timeout", "backend_jobs")
    options |= {name: str(getattr(config, name)) for name in names if getattr(config, name) is not None}
    if config.no_cache:
        options["no_cache"] = "1"
    return options


def _generator(config: RunConfig, model: ModelArchitecture, hardware: Hardware) -> TraceGenerator:
    precision = Precision(config.fp, config.fp, config.fp)
    options = PerfModelOptions(
        architecture=model,
        hardware=hardware,
        tensor=config.tensor,
        precision=precision,
        memory_bandwidth=config.local_bw * 1e9 if config.local_bw else None,
        table=config.perf_table,
    )
    return TraceGenerator(
        model,
        Parallelism(config.tensor, config.stages, config.ep_size),
        make_perf_model(config.perf_model_name, options),
        precision=precision,
        attention_placement=config.attention_placement,
    )


def _policy_settings(config: RunConfig, space: KVSpace, model: ModelArchitecture) -> PolicySettings:
    return PolicySettings(
        space=space,
        model_len=model.max_position,
        pipeline=config.stages,
        kv_manage=config.kv_manage,
        max_batch=config.max_batch,
        batch_delay=config.batch_delay,
        skip_prefill=config.gen,
        vllm={
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "long_prefill_token_threshold": config.long_prefill_token_threshold,
            "enable_prefix_caching": not config.no_prefix_caching,
            "enable_chunked_prefill": not config.no_chunked_prefill,
            "async_scheduling": False if config.no_async_scheduling else None,
            "scheduler_reserve_full_isl": not config.no_reserve_full_isl,
            "policy": config.policy,
            "version": config.vllm_version,
        },
    )
