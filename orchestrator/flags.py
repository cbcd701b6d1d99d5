"""The flags of the main job: one table of names, defaults, units and help. Nothing heavy is imported here.

`orchestrator.config` takes its defaults from it and `orchestrator.cli` its help, so that neither can drift.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: `--name`, its default (None: absent), what it means (with unit), and the group it is listed in."""

    name: str
    default: str | int | float | bool | None
    help: str
    group: str
    shown_default: str = ""
    choices: tuple[str, ...] = ()

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.default is False


MODEL = "Model and hardware"
PARALLEL = "Parallelism and memory"
NETWORK = "Network, host memory"
SCHEDULING = "Scheduling"
VLLM = "Scheduling: --scheduling vllm"
WORKLOAD = "Workload"
BACKEND = "Backend"
OUTPUT = "Output"

FLAGS: tuple[Flag, ...] = (
    Flag(
        "model_name",
        "meta-llama/Llama-3.1-8B-Instruct",
        "shipped model, or the path of a config.json or its folder",
        MODEL,
    ),
    Flag("hardware", "RTX3090", "shipped device, or the path of a hardware file", MODEL),
    Flag("fp", 16, "bits of weights, activations and KV cache: 4, 8, 16 or 32", MODEL),
    Flag(
        "perf_model",
        None,
        "where latencies come from: roofline, table_v0 (needs --perf_table), backend",
        MODEL,
        shown_default="table_v0 with --perf_table, else roofline",
    ),
    Flag("perf_table", None, "CSV of measured latencies: hardware,model,layer_name,input,kv_cache,latency(ns)", MODEL),
    Flag("local_bw", None, "bandwidth of device memory, GB/s (1e9)", MODEL, shown_default="the hardware's"),
    Flag("npu_num", 1, "NPUs", PARALLEL),
    Flag(
        "npu_group",
        None,
        "groups of NPUs, which are pipeline stages: 1 is tensor parallel, npu_num is pipeline",
        PARALLEL,
        shown_default="1; npu_num with --parallel pipeline",
    ),
    Flag(
        "parallel",
        "hybrid",
        "the parallelism npu_num and npu_group must describe; orca implies hybrid",
        PARALLEL,
        choices=("tensor", "pipeline", "hybrid"),
    ),
    Flag(
        "ep_size",
        1,
        "NPUs of a stage that whole experts are spread over: 1 divides every expert, else all NPUs of a stage",
        PARALLEL,
    ),
    Flag("npu_mem", None, "memory of an NPU, GB (1e9)", PARALLEL, shown_default="the hardware's"),
    Flag(
        "attention_placement",
        "heads",
        "spread attention over tensor-parallel ranks by heads, or by requests",
        PARALLEL,
        choices=("heads", "requests"),
    ),
    Flag("link_bw", 256.0, "bandwidth of a link, GB/s (2^30, as ASTRA-sim reads it)", NETWORK),
    Flag("link_latency", 0.0, "latency of a link, ns", NETWORK),
    Flag("remote_bw", 512, "bandwidth between an NPU and host memory, whole GB/s (1e9)", NETWORK),
    Flag("network", None, "your network.yml, used as given", NETWORK, shown_default="made from the flags"),
    Flag(
        "system",
        None,
        "your system.json, used as given but for its roofline",
        NETWORK,
        shown_default="made from the flags",
    ),
    Flag("remote_memory", None, "your memory.json, used as given", NETWORK, shown_default="made from the flags"),
    Flag("write_configs", None, "folder to write the effective network.yml, system.json and memory.json to", NETWORK),
    Flag(
        "scheduling",
        "orca",
        "orca: iteration level; none: request level (static batches); vllm: as vLLM's v1 engine",
        SCHEDULING,
    ),
    Flag("max_batch", 0, "requests in a batch at most; 0: no limit (orca, none)", SCHEDULING),
    Flag(
        "batch_delay",
        0,
        "ns after the first waiting arrival at which a batch starts though not full (none only)",
        SCHEDULING,
    ),
    Flag(
        "kv_manage",
        "vllm",
        "KV memory: vllm in blocks on demand; max, pow2, oracle reserve a request's whole length",
        SCHEDULING,
    ),
    Flag("block_size", None, "tokens in a KV block", SCHEDULING, shown_default="8; 16 with --scheduling vllm"),
    Flag(
        "max_model_len",
        None,
        "longest sequence accepted, tokens",
        SCHEDULING,
        shown_default="the model's, for --kv_manage max and --scheduling vllm; else none",
    ),
    Flag("gen", False, "skip the initiation phase: prompts count as computed already", SCHEDULING),
    Flag("max_num_seqs", 256, "requests running at once", VLLM),
    Flag("max_num_batched_tokens", 2048, "tokens a step", VLLM),
    Flag("long_prefill_token_threshold", 0, "tokens of one prompt a step at most; 0: no limit", VLLM),
    Flag("no_prefix_caching", False, "do not reuse KV blocks of equal prefixes", VLLM),
    Flag("no_chunked_prefill", False, "compute prompts whole", VLLM),
    Flag("no_async_scheduling", False, "decide a step only when the step before has ended", VLLM),
    Flag("no_reserve_full_isl", False, "admit a prompt without checking that all of it fits", VLLM),
    Flag("policy", "fcfs", "order of the waiting queue", VLLM, choices=("fcfs", "priority")),
    Flag("vllm_version", "0.19", "rule set", VLLM, choices=("0.19", "0.33")),
    Flag(
        "dataset",
        None,
        "TSV file: input_toks output_toks arrival_time_ns",
        WORKLOAD,
        shown_default="the sample: 100 ShareGPT-like requests, 10 a second",
    ),
    Flag("req_num", 100, "requests to take from the workload; 0: all", WORKLOAD),
    Flag("seed", 0, "seed of the sample workload", WORKLOAD),
    Flag("skip_unfit", False, "drop (and count) requests that can never fit", WORKLOAD),
    Flag("backend", "embedded", "what simulates the graphs: embedded, astra-sim, docker, spool", BACKEND),
    Flag(
        "congestion",
        "unaware",
        "embedded backend: ASTRA-sim's congestion-unaware or (one dimension) congestion-aware network",
        BACKEND,
        choices=("unaware", "aware"),
    ),
    Flag("num_queues_per_dim", 1, "queues of collectives a network dimension", BACKEND),
    Flag("injection_scale", 1.0, "factor on endpoint-delay", BACKEND),
    Flag("rendezvous_protocol", False, "receivers ask for a message before it is sent", BACKEND),
    Flag("astra_sim", None, "the ASTRA-sim binary (--backend astra-sim)", BACKEND, shown_default="$ORRERY_ASTRA_SIM"),
    Flag("astra_sim_image", None, "container image that holds such a binary (--backend docker)", BACKEND),
    Flag("spool_dir", None, "folder shared with a serving backend (--backend spool)", BACKEND),
    Flag("cross_check", None, "a second backend that simulates every graph too; the first difference stops", BACKEND),
    Flag("cache_dir", None, "folder of the cache of simulated graphs (external backends)", BACKEND),
    Flag("no_cache", False, "neither read nor write that cache", BACKEND),
    Flag(
        "work_dir",
        None,
        "folder in which graphs are handed to external backends",
        BACKEND,
        shown_default="the system's temporary folder",
    ),
    Flag("backend_timeout", 600.0, "seconds that an external backend may take for a graph", BACKEND),
    Flag(
        "backend_jobs",
        None,
        "steps that external backends simulate at a time",
        BACKEND,
        shown_default="the cores, 4 at most",
    ),
    Flag(
        "interface",
        "memory",
        "how graphs reach the backend: in memory, by way of text traces, or of .et files",
        BACKEND,
        choices=("memory", "text", "et"),
    ),
    Flag("trace_dir", None, "folder to write every iteration's text trace and .et files to", BACKEND),
    Flag("macro_steps", 512, "like decode iterations simulated at once at most; results do not depend on it", BACKEND),
    Flag("output", None, "CSV file, a row a request; other files are written beside it", OUTPUT),
    Flag("itl", "list", "the CSV's ITL column: every request's list, or empty", OUTPUT, choices=("list", "none")),
    Flag("no_report", False, "write neither the HTML report nor the timeline", OUTPUT),
    Flag("log_interval", 0.5, "simulated seconds between throughput lines", OUTPUT),
    Flag("verbose", False, "print a line an iteration", OUTPUT),
)


def defaults() -> dict[str, str | int | float | bool | None]:
    """Return every flag's default by name."""
    return {flag.name: flag.default for flag in FLAGS}
