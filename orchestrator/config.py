"""The settings of one run, checked all at once, then frozen: all that can be judged without opening a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from foundation.errors import UserError, near_names
from orchestrator.backend import backends
from orchestrator.flags import defaults
from orchestrator.kv_memory.managers import kv_managers
from orchestrator.schedulers.settings import policies

D: dict[str, Any] = defaults()


MOST_NPUS = 2**20
"""Far more than one instance ever has; a slip of the keyboard is refused before anything is sized by it."""


class RunConfig(BaseModel):
    """One field a flag; meanings and units are in `orchestrator.flags`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = D["model_name"]
    hardware: str = D["hardware"]
    fp: int = D["fp"]
    perf_model: str | None = D["perf_model"]
    perf_table: Path | None = D["perf_table"]
    local_bw: float | None = Field(D["local_bw"], gt=0, allow_inf_nan=False)
    npu_num: int = Field(D["npu_num"], ge=1, le=MOST_NPUS)
    npu_group: int | None = Field(D["npu_group"], ge=1, le=MOST_NPUS)
    parallel: Literal["tensor", "pipeline", "hybrid"] = D["parallel"]
    ep_size: int = Field(D["ep_size"], ge=1)
    npu_mem: float | None = Field(D["npu_mem"], gt=0, allow_inf_nan=False)
    attention_placement: Literal["heads", "requests"] = D["attention_placement"]
    link_bw: float = Field(D["link_bw"], gt=0, allow_inf_nan=False)
    link_latency: float = Field(D["link_latency"], ge=0, allow_inf_nan=False)
    remote_bw: int = Field(D["remote_bw"], ge=1)
    network: Path | None = D["network"]
    system: Path | None = D["system"]
    remote_memory: Path | None = D["remote_memory"]
    write_configs: Path | None = D["write_configs"]
    scheduling: str = D["scheduling"]
    max_batch: int = Field(D["max_batch"], ge=0)
    batch_delay: int = Field(D["batch_delay"], ge=0)
    kv_manage: str = D["kv_manage"]
    block_size: int | None = Field(D["block_size"], ge=1)
    max_model_len: int | None = Field(D["max_model_len"], ge=2)
    gen: bool = D["gen"]
    max_num_seqs: int = Field(D["max_num_seqs"], ge=1)
    max_num_batched_tokens: int = Field(D["max_num_batched_tokens"], ge=1)
    long_prefill_token_threshold: int = Field(D["long_prefill_token_threshold"], ge=0)
    no_prefix_caching: bool = D["no_prefix_caching"]
    no_chunked_prefill: bool = D["no_chunked_prefill"]
    no_async_scheduling: bool = D["no_async_scheduling"]
    no_reserve_full_isl: bool = D["no_reserve_full_isl"]
    policy: Literal["fcfs", "priority"] = D["policy"]
    vllm_version: Literal["0.19", "0.33"] = D["vllm_version"]
    dataset: Path | None = D["dataset"]
    req_num: int = Field(D["req_num"], ge=0)
    seed: int = D["seed"]
    skip_unfit: bool = D["skip_unfit"]
    backend: str = D["backend"]
    congestion: Literal["unaware", "aware"] = D["congestion"]
    num_queues_per_dim: int = Field(D["num_queues_per_dim"], ge=1, le=1024)
    injection_scale: float = Field(D["injection_scale"], ge=0, allow_inf_nan=False)
    rendezvous_protocol: bool = D["rendezvous_protocol"]
    astra_sim: str | None = D["astra_sim"]
    astra_sim_image: str | None = D["astra_sim_image"]
    spool_dir: str | None = D["spool_dir"]
    cross_check: str | None = D["cross_check"]
    cache_dir: str | None = D["cache_dir"]
    no_cache: bool = D["no_cache"]
    work_dir: str | None = D["work_dir"]
    backend_timeout: float = Field(D["backend_timeout"], gt=0, allow_inf_nan=False)
    backend_jobs: int | None = Field(D["backend_jobs"], ge=1)
    interface: Literal["memory", "text", "et"] = D["interface"]
    trace_dir: Path | None = D["trace_dir"]
    macro_steps: int = Field(D["macro_steps"], ge=1)
    output: Path | None = D["output"]
    itl: Literal["list", "none"] = D["itl"]
    no_report: bool = D["no_report"]
    log_interval: float = Field(D["log_interval"], ge=1e-6, allow_inf_nan=False)
    verbose: bool = D["verbose"]

    @classmethod
    def from_flags(cls, values: Mapping[str, Any]) -> Self:
        """Build the settings from flag values (text or typed); a `UserError` holds everything that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError("; ".join(_explain(problem) for problem in error.errors())) from None

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        if self.npu_group is not None:
            return self.npu_group
        return self.npu_num if self.parallel == "pipeline" else 1

    @property
    def tensor(self) -> int:
        """NPUs that share a stage."""
        return self.npu_num // self.stages

    @property
    def layout(self) -> str:
        """How the NPUs share the model, in short."""
        experts = f" x EP {self.ep_size}" if self.ep_size > 1 else ""
        return f"TP {self.tensor} x PP {self.stages}{experts}"

    @property
    def perf_model_name(self) -> str:
        """The performance model that is meant."""
        return self.perf_model or ("table_v0" if self.perf_table else "roofline")

    @property
    def kv_block_size(self) -> int:
        """Tokens in a KV block."""
        return self.block_size or (16 if self.scheduling == "vllm" else 8)

    @property
    def log_interval_ns(self) -> int:
        """`log_interval` in ns."""
        return round(self.log_interval * 1e9)

    @field_validator("fp")
    @classmethod
    def _known_width(cls, value: int) -> int:
        if value not in (4, 8, 16, 32):
            raise ValueError(f"{value} bits are not supported; use 4, 8, 16 or 32")
        return value

    @field_validator("backend", "cross_check")
    @classmethod
    def _known_backend(cls, value: str | None) -> str | None:
        return value if value is None else _known(value, backends, "backend")

    @field_validator("scheduling")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        return _known(value, policies, "scheduling policy")

    @field_validator("kv_manage")
    @classmethod
    def _known_manager(cls, value: str) -> str:
        return _known(value, kv_managers, "KV memory manager")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._parallelism_problems(), *self._conflicts()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _parallelism_problems(self) -> list[str]:
        if self.npu_num % self.stages:
            divisors = [str(n) for n in range(1, self.npu_num + 1) if self.npu_num % n == 0]
            return [
                f"--npu_group: {self.stages} groups do not divide {self.npu_num} NPUs; use one of {', '.join(divisors)}"
            ]
        if self.parallel == "tensor" and self.stages != 1:
            return [f"--parallel tensor: conflicts with --npu_group {self.stages}; give 1, or --parallel hybrid"]
        if self.parallel == "pipeline" and self.stages != self.npu_num:
            return [
                f"--parallel pipeline: conflicts with --npu_group {self.stages}; "
                f"give {self.npu_num} (npu_num), or --parallel hybrid"
            ]
        if self.ep_size not in (1, self.tensor):
            right = "1" if self.tensor == 1 else f"1 or {self.tensor}"
            return [f"--ep_size: experts over {self.ep_size} NPUs, but a stage has {self.tensor}; give {right}"]
        return []

    def _conflicts(self) -> list[str]:
        problems = []
        if self.scheduling == "orca" and self.parallel != "hybrid":
            problems.append(
                f"--parallel {self.parallel}: conflicts with --scheduling orca, which implies hybrid; leave it out"
            )
        if self.scheduling != "none" and self.batch_delay:
            problems.append(
                f"--batch_delay {self.batch_delay}: conflicts with --scheduling {self.scheduling}; "
                "only --scheduling none waits for a batch to fill"
            )
        if self.scheduling == "vllm":
            for name in ("max_batch", "gen"):
                if getattr(self, name):
                    problems.append(f"--{name}: conflicts with --scheduling vllm; leave it out")
            if self.kv_manage != "vllm":
                problems.append(f"--kv_manage {self.kv_manage}: conflicts with --scheduling vllm; leave it out")
        if self.congestion == "aware" and "embedded" not in (self.backend, self.cross_check):
            problems.append(f"--congestion aware: conflicts with --backend {self.backend}; give it an aware binary")
        if self.perf_table and self.perf_model not in (None, "table_v0"):
            problems.append(f"--perf_table: conflicts with --perf_model {self.perf_model}; leave one out")
        if self.perf_model == "table_v0" and not self.perf_table:
            problems.append("--perf_model table_v0: no table; give it with --perf_table FILE")
        return problems


def _known(value: str, names: Any, kind: str) -> str:
    if value not in names:
        raise ValueError(f"unknown {kind} {value!r}; {near_names(value, names)}")
    return value


def _explain(problem: Any) -> str:
    """Return one problem that pydantic found as `--flag: what; what would be right`."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    where = f"--{problem['loc'][0]}"
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    expected = message[0].lower() + message[1:]
    return f"{where}: {problem['input']!r} is wrong; {expected}"
