"""What one engine is made of, but for its policy, performance model and backend, which have settings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from astra_files.network import LEAST_BANDWIDTH, MOST_BANDWIDTH, MOST_LATENCY
from foundation.digits import whole_number
from foundation.printable import brief
from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem

if TYPE_CHECKING:
    from trace_gen.attention.absorption import Absorption
    from trace_gen.context import ContextMode
    from trace_gen.generator import AttentionPlacement, ExpertExchange

MOST_NPUS = 2**20
"""Far more than one engine ever has; a slip of the keyboard is refused before anything is sized by it."""
MOST_ENGINES = 4096
MOST_MEMBERS = 4096
"""Of a data-parallel group."""
MOST_LAYERS = 65536
"""Of a stage."""
HOST_GB_S = 512
"""LLMServingSim's default, far more than PCI Express gives."""
_SAID_BY = {
    "link_bw": ("network", "node"),
    "link_latency": ("network", "node"),
    "nodes": ("network",),
    "remote_bw": ("remote_memory",),
}
"""Numbers, and the files that say the same."""
_BESIDE_FABRICS = ("network", "system", "link_bw", "link_latency")
"""What takes a fabric's place where it is given."""
NO_FABRIC = "none"


Role = Literal["both", "prefill", "decode"]
DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DEFAULT_HARDWARE = "RTX3090"
DTYPES = {"auto": 16, "half": 16, "float16": 16, "bfloat16": 16, "float": 32, "float32": 32}
"""Bits of a number, by vLLM's names; `auto` is taken for 16, whatever a checkpoint says."""
KV_DTYPES = {"bfloat16": 16, "float16": 16, "fp8": 8, "fp8_e4m3": 8, "fp8_e5m2": 8}


@dataclass(frozen=True)
class ModelSettings:
    """The model, the device it runs on, and the width of its numbers."""

    model_name: str | None = setting(
        None,
        "shipped model, or the path of a config.json or its folder",
        aliases=("model",),
        shown_default=DEFAULT_MODEL,
    )
    model_onnx: Path | None = setting(
        None, "ONNX file that holds the model, in place of --model_name", shown_default="the model by its name"
    )
    hardware: str | None = setting(
        None,
        "shipped device, or the path of a hardware file",
        shown_default=f"the --node's, that of --profile_dir, else {DEFAULT_HARDWARE}",
    )
    fp: int | None = setting(
        None, "bits of weights, activations and KV cache", choices=("4", "8", "16", "32"), shown_default="16"
    )
    dtype: str | None = setting(
        None, "the same by vLLM's names", choices=tuple(DTYPES), like=("fp",), shown_default="as --fp"
    )
    kv_cache_dtype: str = setting(
        "auto", "the KV cache's own numbers, where they differ, by vLLM's names", choices=("auto", *KV_DTYPES)
    )
    quantization: str | None = setting(
        None,
        "how weights are quantised, as vLLM says it: as the checkpoint's are, or fp8 where they are not",
        shown_default="the checkpoint's",
    )
    mla: Absorption = setting(
        "auto",
        "latent attention: keys and values expanded for prompts and absorbed for decodes, or one for all tokens",
        choices=("auto", "absorb", "expand"),
    )
    local_bw: float | None = setting(
        None, "bandwidth of device memory", unit="GB/s (1e9)", above=0, shown_default="the hardware's"
    )

    @property
    def bits(self) -> int:
        """Bits of a weight and of an activation."""
        return DTYPES[self.dtype] if self.dtype else self.fp or 16

    @property
    def kv_bits(self) -> int:
        """Bits of a number in the KV cache."""
        return KV_DTYPES.get(self.kv_cache_dtype, self.bits)

    def decided(self, device: str, memory_bandwidth: float) -> ModelSettings:
        """Return the same on the device called so, with what it (bytes/s) and other settings decide."""
        bandwidth = self.local_bw or memory_bandwidth / 1e9
        name = None if self.model_onnx else self.model_name or DEFAULT_MODEL
        return replace(self, model_name=name, hardware=device, fp=self.bits, dtype=None, local_bw=bandwidth)

    def problems(self) -> Iterator[Problem]:
        """The model and the widths of its numbers are given once."""
        if self.model_name is not None and self.model_onnx is not None:
            yield Problem("model_onnx", f"conflicts with --model_name {self.model_name}", "leave one out")
        if self.dtype is not None and self.fp not in (None, DTYPES[self.dtype]):
            yield Problem("dtype", f"{self.dtype} conflicts with --fp {self.fp}", "leave one out")


@dataclass(frozen=True)
class ParallelismSettings:
    """How the NPUs of an engine share the model: as groups, or in vLLM's words."""

    npu_num: int | None = setting(
        None, "NPUs", least=1, most=MOST_NPUS, shown_default="1; tensor x pipeline parallel size"
    )
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
    tensor_parallel_size: int | None = setting(
        None,
        "NPUs that share a stage, as vLLM says it",
        least=1,
        most=MOST_NPUS,
        shown_default="npu_num / npu_group",
    )
    pipeline_parallel_size: int | None = setting(
        None, "pipeline stages, as vLLM says it", least=1, most=MOST_NPUS, shown_default="npu_group"
    )
    data_parallel_size: int | None = setting(
        None,
        "engines like this one, with NPUs of their own, that share the experts of a mixture and advance in lock step; "
        "of a dense model the same as --instances",
        least=1,
        most=MOST_MEMBERS,
        shown_default="1",
    )
    ep_size: int | None = setting(
        None,
        "NPUs of a stage, of all data-parallel engines, that whole experts are spread over: 1 divides every expert, "
        "else all of them",
        least=1,
        shown_default="1",
    )
    enable_expert_parallel: bool = setting(
        False,
        "spread whole experts over all NPUs of a stage, of all data-parallel engines, as vLLM says it",
        like=("ep_size",),
    )
    expert_exchange: ExpertExchange | None = setting(
        None,
        "how tokens reach whole experts on other NPUs: all-to-all there and back, or all-gather and reduce-scatter",
        choices=("alltoall", "allgather"),
        shown_default="allgather between data-parallel engines, as vLLM has it, else alltoall",
    )
    redundant_experts: int = setting(
        0,
        "experts that NPUs hold beside the model's own, as second copies of the most popular",
        least=0,
        most=MOST_NPUS,
        aliases=("num_redundant_experts",),
    )
    npu_mem: float | None = setting(None, "memory of an NPU", unit="GB (1e9)", above=0, shown_default="the hardware's")
    cpu_offload_gb: float = setting(
        0.0,
        "weights of an NPU that stay in host memory and are loaded anew in every iteration",
        unit="GiB (2^30), as vLLM counts",
        least=0,
    )
    cp_size: int | None = setting(
        None,
        "NPUs that every sequence and its KV cache are divided over (context parallel), in each stage",
        least=1,
        most=MOST_NPUS,
        aliases=("prefill_context_parallel_size",),
        shown_default="1",
    )
    cp_mode: ContextMode = setting(
        "ring",
        "how keys and values of prompts reach the NPUs of a sequence: passed on block by block behind the attention, "
        "or all-gathered before it",
        choices=("ring", "allgather"),
    )
    sequence_parallel: bool = setting(
        False, "divide norms over the tokens: reduce-scatter and all-gather in place of all-reduces (vLLM's enable_sp)"
    )
    pp_layers: str | None = setting(
        None,
        "layers of each pipeline stage, such as 21,21,20,18",
        shown_default="as equal as can be",
    )
    attention_placement: AttentionPlacement = setting(
        "heads", "spread attention over tensor-parallel ranks by heads, or by requests", choices=("heads", "requests")
    )

    @property
    def npus(self) -> int:
        """All NPUs of the engine, of a data-parallel group of each."""
        return self.npu_num or (self.tensor_parallel_size or 1) * (self.pipeline_parallel_size or 1) * self.context

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        named = self.npu_group or self.pipeline_parallel_size
        return named or (max(1, self.npus // self.context) if self.parallel == "pipeline" else 1)

    @property
    def context(self) -> int:
        """NPUs that every sequence is divided over."""
        return self.cp_size or 1

    @property
    def data(self) -> int:
        """Engines that advance in lock step, each with as many NPUs."""
        return self.data_parallel_size or 1

    @property
    def member_size(self) -> int:
        """NPUs of a stage of the engine."""
        return self.npus // self.stages

    @property
    def stage_size(self) -> int:
        """NPUs of a stage, those of all data-parallel engines."""
        return self.member_size * self.data

    @property
    def tensor(self) -> int:
        """NPUs that share the matrices of a stage."""
        return self.member_size // self.context

    @property
    def expert(self) -> int:
        """NPUs that whole experts are spread over."""
        return self.stage_size if self.enable_expert_parallel else self.ep_size or 1

    @property
    def exchange(self) -> ExpertExchange:
        """How tokens reach experts; between data-parallel engines as vLLM has it (allgather_reducescatter)."""
        return self.expert_exchange or ("allgather" if self.data > 1 else "alltoall")

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of each stage; none: as equal as can be."""
        return tuple(int(count) for count in self.pp_layers.split(",")) if self.pp_layers else ()

    @property
    def layout(self) -> str:
        """How the NPUs share the model, in short."""
        context = f" x CP {self.context}" if self.context > 1 else ""
        experts = f" x EP {self.expert}" if self.expert > 1 else ""
        data = f"DP {self.data} x " if self.data > 1 else ""
        return f"{data}TP {self.tensor} x PP {self.stages}{context}{experts}"

    def decided(self, memory_bytes: int) -> ParallelismSettings:
        """Return the same in our own words, with what the device decides."""
        return replace(
            self,
            npu_num=self.npus,
            npu_group=self.stages,
            tensor_parallel_size=None,
            pipeline_parallel_size=None,
            cp_size=self.context,
            data_parallel_size=self.data,
            ep_size=self.expert,
            enable_expert_parallel=False,
            expert_exchange=self.exchange,
            npu_mem=self.npu_mem or memory_bytes / 1e9,
        )

    def problems(self) -> Iterator[Problem]:
        """The groups divide the NPUs, and agree with the parallelism that is named; experts fill a stage."""
        stages, npus = self.stages, self.npus
        if twice := self._said_twice():
            yield twice
        elif npus % stages:
            divisors = ", ".join(str(n) for n in range(1, npus + 1) if npus % n == 0)
            yield Problem("npu_group", f"{stages} groups do not divide {npus} NPUs", f"use one of {divisors}")
        elif self.member_size % self.context:
            divisors = ", ".join(str(n) for n in range(1, self.member_size + 1) if self.member_size % n == 0)
            what = f"{self.context} do not divide the {self.member_size} NPUs of a stage"
            yield Problem("cp_size", what, f"use one of {divisors}")
        elif self.parallel == "tensor" and stages != 1:
            yield Problem("parallel", f"tensor conflicts with --npu_group {stages}", "give 1, or --parallel hybrid")
        elif self.parallel == "pipeline" and self.tensor != 1:
            fix = f"give {npus // self.context} (npu_num), or --parallel hybrid"
            yield Problem("parallel", f"pipeline conflicts with --npu_group {stages}", fix)
        elif self.expert not in (1, self.stage_size):
            right = "1" if self.stage_size == 1 else f"1 or {self.stage_size}"
            engines = f" in {self.data} engines" if self.data > 1 else ""
            what = f"experts over {self.expert} NPUs, but a stage has {self.stage_size}{engines}"
            yield Problem("ep_size", what, f"give {right}")
        elif self.context > 1 and self.attention_placement == "requests":
            what = "requests conflicts with --cp_size: a sequence is divided, not on one NPU"
            yield Problem("attention_placement", what, "give heads, or --cp_size 1")
        elif not self._layers_are_numbers():
            what = f"{brief(self.pp_layers or '')} is no list of the layers of {stages} stages"
            yield Problem("pp_layers", what, f"give {stages} whole numbers from 1, with commas between")

    def _said_twice(self) -> Problem | None:
        """Return what vLLM's words and ours say differently, if they do."""
        tensor, pipeline, npus = self.tensor_parallel_size, self.pipeline_parallel_size, self.npus
        if pipeline and self.npu_group not in (None, pipeline):
            what = f"{pipeline} conflicts with --npu_group {self.npu_group}"
            return Problem("pipeline_parallel_size", what, "leave one out")
        if tensor and npus != tensor * self.stages * self.context:
            context = f" of {self.context} context-parallel ranks" if self.context > 1 else ""
            what = f"{tensor} conflicts with {npus} NPUs in {self.stages} stages{context}"
            return Problem("tensor_parallel_size", what, "leave --npu_num out")
        if self.enable_expert_parallel and self.ep_size not in (None, self.stage_size):
            return Problem("enable_expert_parallel", f"conflicts with --ep_size {self.ep_size}", "leave one out")
        return None

    def _layers_are_numbers(self) -> bool:
        """Whether the layers of the stages are as many whole numbers from 1 as there are stages, or not given."""
        given = [] if self.pp_layers is None else self.pp_layers.split(",")
        return len(given) in (0, self.stages) and all(whole_number(n, 1, MOST_LAYERS) is not None for n in given)


@dataclass(frozen=True)
class NetworkSettings:
    """Links and host memory: made from numbers, or the user's own files."""

    link_bw: float | None = setting(
        None,
        "bandwidth of a link",
        unit="GB/s (2^30, as ASTRA-sim reads it)",
        least=LEAST_BANDWIDTH,
        most=MOST_BANDWIDTH,
        shown_default="the hardware's own link",
    )
    link_latency: float | None = setting(
        None, "latency of a link", unit="ns", least=0, most=MOST_LATENCY, shown_default="the hardware's own link"
    )
    remote_bw: int | None = setting(
        None, "bandwidth between an NPU and host memory", unit="whole GB/s (1e9)", least=1, shown_default="512"
    )
    node: str | None = setting(
        None,
        "kind of node that the NPUs stand in, by name, or the path of a node file: decides device and links",
        shown_default="none: every link is the device's own",
    )
    nodes: int | None = setting(
        None, "such nodes that the NPUs are spread over", least=1, most=MOST_NPUS, shown_default="as few as hold them"
    )
    fabric: str | None = setting(
        None,
        "what collectives take: a shipped fabric by name, the path of a fabric file or of nccl-tests' output, or none "
        "for the links' figures alone",
        shown_default="the node's, else the hardware's; none beside --network, --system, --link_bw, --link_latency",
    )
    network: Path | None = setting(None, "your network.yml, used as given", shown_default="made from the flags")
    system: Path | None = setting(
        None, "your system.json, used as given but for its roofline", shown_default="made from the flags"
    )
    remote_memory: Path | None = setting(None, "your memory.json, used as given", shown_default="made from the flags")

    def decided(self, link_bandwidth: float, link_latency_ns: float, fabric: str | None = None) -> NetworkSettings:
        """Return the same with what is made from numbers: the link's (bytes/s, ns) where nothing else is said.

        `fabric` is what the engine's NPUs are joined by, if it is known; it leaves the link's numbers to the device.
        """
        by_hand = any(getattr(self, name) is not None for name in _BESIDE_FABRICS)
        made = self if by_hand or self.fabric is not None else replace(self, fabric=fabric)
        if self.network is None and self.node is None and made.fabric in (None, NO_FABRIC):
            bandwidth = link_bandwidth / 2**30 if self.link_bw is None else self.link_bw
            latency = float(link_latency_ns) if self.link_latency is None else self.link_latency
            made = replace(made, link_bw=bandwidth, link_latency=latency)
        return made if self.remote_memory is not None else replace(made, remote_bw=self.remote_bw or HOST_GB_S)

    def problems(self) -> Iterator[Problem]:
        """A file says all that the numbers would say."""
        for name, files in _SAID_BY.items():
            said_by = [file for file in files if getattr(self, file) is not None]
            if getattr(self, name) is not None and said_by:
                yield Problem(name, f"not read beside --{said_by[0]}, which says it", "leave one out")
        beside = [name for name in _BESIDE_FABRICS if getattr(self, name) is not None]
        if self.fabric not in (None, NO_FABRIC) and beside:
            what = f"{brief(self.fabric)} beside --{beside[0]}, which says what collectives take"
            yield Problem("fabric", what, "leave one out")
        if self.nodes is not None and self.node is None:
            yield Problem("nodes", "nobody says what nodes they are", "give --node")


@dataclass(frozen=True)
class MemorySettings:
    """The KV cache of an engine."""

    block_size: int | None = setting(
        None,
        "tokens in a KV block",
        least=1,
        shown_default="the policy's own: 1 for lightllm and sglang, 16 for vLLM's and sarathi, else 8",
    )
    max_model_len: int | None = setting(
        None,
        "longest sequence accepted, tokens",
        least=2,
        shown_default="the model's; none for policies that need none, but with --kv_manage max",
    )
