"""What one engine is made of, but for its policy, performance model and backend, which have settings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.settings import setting
from foundation.settings.reading import Problem

if TYPE_CHECKING:
    from trace_gen.generator import AttentionPlacement

MOST_NPUS = 2**20
"""Far more than one engine ever has; a slip of the keyboard is refused before anything is sized by it."""


@dataclass(frozen=True)
class ModelSettings:
    """The model, the device it runs on, and the width of its numbers."""

    model_name: str = setting(
        "meta-llama/Llama-3.1-8B-Instruct",
        "shipped model, or the path of a config.json or its folder",
        aliases=("model",),
    )
    hardware: str = setting("RTX3090", "shipped device, or the path of a hardware file")
    fp: int = setting(16, "bits of weights, activations and KV cache", choices=("4", "8", "16", "32"))
    local_bw: float | None = setting(
        None, "bandwidth of device memory", unit="GB/s (1e9)", above=0, shown_default="the hardware's"
    )


@dataclass(frozen=True)
class ParallelismSettings:
    """How the NPUs of an engine share the model."""

    npu_num: int = setting(1, "NPUs", least=1, most=MOST_NPUS)
    npu_group: int | None = setting(
        None,
        "groups of NPUs, which are pipeline stages: 1 is tensor parallel, npu_num is pipeline",
        least=1,
        most=MOST_NPUS,
        shown_default="1; npu_num with --parallel pipeline",
    )
    parallel: str = setting(
        "hybrid",
        "the parallelism npu_num and npu_group must describe; orca implies hybrid",
        choices=("tensor", "pipeline", "hybrid"),
    )
    ep_size: int = setting(
        1,
        "NPUs of a stage that whole experts are spread over: 1 divides every expert, else all NPUs of a stage",
        least=1,
    )
    npu_mem: float | None = setting(None, "memory of an NPU", unit="GB (1e9)", above=0, shown_default="the hardware's")
    attention_placement: AttentionPlacement = setting(
        "heads", "spread attention over tensor-parallel ranks by heads, or by requests", choices=("heads", "requests")
    )

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

    def problems(self) -> Iterator[Problem]:
        """The groups divide the NPUs, and agree with the parallelism that is named; experts fill a stage."""
        stages = self.stages
        if self.npu_num % stages:
            divisors = ", ".join(str(n) for n in range(1, self.npu_num + 1) if self.npu_num % n == 0)
            yield Problem("npu_group", f"{stages} groups do not divide {self.npu_num} NPUs", f"use one of {divisors}")
        elif self.parallel == "tensor" and stages != 1:
            yield Problem("parallel", f"tensor conflicts with --npu_group {stages}", "give 1, or --parallel hybrid")
        elif self.parallel == "pipeline" and stages != self.npu_num:
            fix = f"give {self.npu_num} (npu_num), or --parallel hybrid"
            yield Problem("parallel", f"pipeline conflicts with --npu_group {stages}", fix)
        elif self.ep_size not in (1, self.tensor):
            right = "1" if self.tensor == 1 else f"1 or {self.tensor}"
            what = f"experts over {self.ep_size} NPUs, but a stage has {self.tensor}"
            yield Problem("ep_size", what, f"give {right}")


@dataclass(frozen=True)
class NetworkSettings:
    """Links and host memory: made from numbers, or the user's own files."""

    link_bw: float = setting(256.0, "bandwidth of a link", unit="GB/s (2^30, as ASTRA-sim reads it)", above=0)
    link_latency: float = setting(0.0, "latency of a link", unit="ns", least=0)
    remote_bw: int = setting(512, "bandwidth between an NPU and host memory", unit="whole GB/s (1e9)", least=1)
    network: Path | None = setting(None, "your network.yml, used as given", shown_default="made from the flags")
    system: Path | None = setting(
        None, "your system.json, used as given but for its roofline", shown_default="made from the flags"
    )
    remote_memory: Path | None = setting(None, "your memory.json, used as given", shown_default="made from the flags")


@dataclass(frozen=True)
class MemorySettings:
    """The KV cache of an engine."""

    block_size: int | None = setting(
        None, "tokens in a KV block", least=1, shown_default="8; 16 with --scheduling vllm"
    )
    max_model_len: int | None = setting(
        None,
        "longest sequence accepted, tokens",
        least=2,
        shown_default="the model's, for --kv_manage max and --scheduling vllm; else none",
    )
