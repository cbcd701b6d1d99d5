"""What is common to a whole run: its workload, by which way graphs reach a backend, and what is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.requests.formats import request_formats
from orchestrator.requests.importing.texts import DEFAULT_CHARS_PER_TOKEN

DEFAULT_INTERVAL_S = 0.5
SAMPLE_REQUESTS = 100
MOST_SAMPLE_REQUESTS = 1_000_000
MOST_ADAPTERS = 1_000_000
NIC_GB_S = 50.0
"""A 400 Gb/s adapter for each GPU, as in DGX H100 (NVIDIA's data sheet: eight ConnectX-7 at up to 400 Gb/s)."""
TRANSFER_LATENCY_NS = 5000
"""An assumption: a request and an answer over InfiniBand (about 2 us), and what posting them takes."""


@dataclass(frozen=True)
class WorkloadSettings:
    """The requests."""

    dataset: Path | None = setting(
        None,
        "file of requests: TSV (input_toks output_toks arrival_time_ns), or a trace, data set or result of other tools",
        shown_default="the sample: 100 ShareGPT-like requests, 10 a second",
    )
    dataset_format: str | None = setting(
        None, "what the file is", choices=request_formats, shown_default="what its content says"
    )
    tokenizer: Path | None = setting(
        None,
        "tokenizer.json, or the folder that has it, to count the tokens of texts in the file with",
        shown_default="--chars_per_token",
        folder=True,
    )
    chars_per_token: float | None = setting(
        None,
        "characters of a text that count as a token",
        least=0.1,
        most=1e6,
        shown_default=f"{DEFAULT_CHARS_PER_TOKEN:g}",
    )
    skip_bad_records: bool = setting(False, "drop (and count) malformed records of the file")
    req_num: int | None = setting(
        None,
        "requests to take from the workload; 0: all",
        least=0,
        aliases=("num_prompts",),
        shown_default=f"all of a dataset, {SAMPLE_REQUESTS} of the sample",
    )
    seed: int = setting(0, "seed of the sample workload, and of what routings and routers draw")
    lora_adapters: int | None = setting(
        None,
        "LoRA adapters that requests are served with, each with the next one",
        least=1,
        most=MOST_ADAPTERS,
        shown_default="none",
    )
    skip_unfit: bool = setting(False, "drop (and count) requests that can never fit")

    def problems(self) -> Iterator[Problem]:
        """A sample is small; whoever wants many requests writes them to a file, once."""
        if self.tokenizer is not None and self.chars_per_token is not None:
            yield Problem("chars_per_token", "--tokenizer counts tokens already", "leave one of the two out")
        for name in (
            ("dataset_format", "tokenizer", "chars_per_token", "skip_bad_records") if self.dataset is None else ()
        ):
            if getattr(self, name):
                yield Problem(name, "there is no file to read", "give --dataset")
        if self.dataset is None and (self.req_num or 0) > MOST_SAMPLE_REQUESTS:
            what = f"{self.req_num} requests of the sample, which has at most {MOST_SAMPLE_REQUESTS}"
            yield Problem("req_num", what, "write a workload with python -m orchestrator.workload_generator")

    def decided(self) -> WorkloadSettings:
        """Return the same with as many requests of the sample as there are by default."""
        return self if self.dataset is not None else replace(self, req_num=self.req_num or SAMPLE_REQUESTS)


@dataclass(frozen=True)
class TransferSettings:
    """How KV cache gets from engines that compute prompts to those that go on with them."""

    kv_transfer: str = setting(
        "whole",
        "when KV cache leaves the engine that computes it: whole when the prompt is done, or layer by layer meanwhile",
        choices=("whole", "layerwise"),
    )
    transfer_bw: float | None = setting(
        None,
        "bandwidth of an NPU's network card, each direction",
        unit="GB/s (1e9)",
        above=0,
        most=1e9,
        shown_default=f"the node's, or {NIC_GB_S:g} without --node",
    )
    transfer_latency: int | None = setting(
        None,
        "latency of a transfer of KV cache",
        unit="ns",
        least=0,
        most=10**12,
        shown_default=f"the node's, or {TRANSFER_LATENCY_NS} without --node",
    )


@dataclass(frozen=True)
class ExecutionSettings:
    """By which way batches become times: all ways lead to the same results."""

    interface: str = setting(
        "memory",
        "how graphs reach the backend: in memory, by way of text traces, or of .et files",
        choices=("memory", "text", "et"),
        bearing="way",
    )
    trace_dir: Path | None = setting(
        None, "folder to write every iteration's text trace and .et files to", bearing="output", folder=True
    )
    macro_steps: int = setting(
        512,
        "like decode iterations simulated at once at most; results do not depend on it",
        least=1,
        bearing="way",
    )


@dataclass(frozen=True)
class OutputSettings:
    """What is written and said."""

    output: Path | None = setting(
        None, "CSV file, a row a request; other files are written beside it", bearing="output"
    )
    itl: str | None = setting(
        None,
        "the CSV's ITL column: every request's list of times between its tokens, or empty",
        choices=("list", "none"),
        bearing="output",
        shown_default="list; none where the workload has more than 1,000,000 output tokens",
    )
    report: bool = setting(True, "write the HTML report and the timeline", bearing="output")
    log_interval: float | None = setting(
        None,
        "simulated seconds of an interval of throughput; given, a line is printed for each",
        least=1e-6,
        shown_default="0.5, without lines",
    )
    write_configs: Path | None = setting(
        None, "folder to write the effective network.yml, system.json and memory.json to", bearing="output", folder=True
    )
    verbose: bool = setting(False, "print a line an iteration and an interval", bearing="output")
    quiet: bool = setting(False, "print nothing but errors", bearing="output")

    @property
    def log_interval_ns(self) -> int:
        """`log_interval` in ns."""
        return round((DEFAULT_INTERVAL_S if self.log_interval is None else self.log_interval) * 1e9)
