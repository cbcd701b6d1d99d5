"""What is common to a whole run: its workload, by which way graphs reach a backend, and what is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from foundation.records import dataclass
from foundation.settings import records, setting
from foundation.settings.reading import Problem
from orchestrator.requests.formats import request_formats
from orchestrator.requests.generators.arrivals import DEFAULT_RATE
from orchestrator.requests.generators.arrivals.ramp import Ramp
from orchestrator.requests.generators.clients import ClientSettings
from orchestrator.requests.importing.texts import DEFAULT_CHARS_PER_TOKEN

DEFAULT_INTERVAL_S = 0.5
SAMPLE_REQUESTS = 100
MOST_SAMPLE_REQUESTS = 1_000_000
MOST_GENERATED = 10**9
MOST_ADAPTERS = 1_000_000
MOST_YEARS = 1.4
"""A hundredth of what 64 bits hold in ns: the arrivals of a bursty process may end later than its rate says."""
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
        aliases=("dataset_path",),
        shown_default="requests are made here: unless told otherwise the sample, 100 ShareGPT-like ones, 10 a second",
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
    duration: float | None = setting(
        None,
        "requests (and sessions) that arrive later are left out",
        unit="s",
        above=0,
        most=1e9,
        shown_default="no end",
    )
    seed: int = setting(0, "seed of generated workloads, and of what routings and routers draw")
    lora_adapters: int | None = setting(
        None,
        "LoRA adapters that requests are served with, each with the next one",
        least=1,
        most=MOST_ADAPTERS,
        shown_default="none",
    )
    skip_unfit: bool = setting(False, "drop (and count) requests that can never fit")
    mixture: tuple[ClientSettings, ...] = records(
        ClientSettings, "clients whose requests come together, each with what it does not share"
    )

    @property
    def is_sample(self) -> bool:
        """Whether nothing is said of the requests: they are then the sample."""
        return self.dataset is None and self.mixture == (ClientSettings(),)

    @property
    def replaces_times(self) -> bool:
        """Whether a data set's requests come at other times than the file says."""
        return self.mixture[0].arrivals is not None or self.mixture[0].request_rate is not None

    def problems(self) -> Iterator[Problem]:
        """Clients go together, and with the data set; no clock runs for a century."""
        yield from self._unfit_reading()
        yield from self._unfit_clients()
        yield from self._endless()
        if self.dataset is None and self.duration is not None and not self.req_num:
            if any(one.at_once for one in self.mixture):
                yield Problem("duration", "all requests come at 0, and have no end", "give --req_num")
            if any(isinstance(one.process, Ramp) for one in self.mixture):
                yield Problem("duration", "a ramp ends with the last request", "give --req_num beside it")

    def too_many(self) -> Iterator[Problem]:
        """Yield why a run cannot hold the requests: they are made and kept in memory."""
        if self.dataset is not None:
            return
        if (self.req_num or 0) > MOST_SAMPLE_REQUESTS:
            kind = "the sample, which has" if self.is_sample else "a run that makes them itself,"
            what = f"{self.req_num} requests of {kind} at most {MOST_SAMPLE_REQUESTS}"
            yield Problem("req_num", what, "write a workload with orrery workload")
        if self.duration is not None and not self.req_num and self._expected(self.duration) > MOST_SAMPLE_REQUESTS:
            what = f"{self._expected(self.duration):.3g} requests, of which a run makes {MOST_SAMPLE_REQUESTS} at most"
            yield Problem("duration", what, "give less, or write a workload with orrery workload")

    def _unfit_reading(self) -> Iterator[Problem]:
        if self.tokenizer is not None and self.chars_per_token is not None:
            yield Problem("chars_per_token", "--tokenizer counts tokens already", "leave one of the two out")
        for name in (
            ("dataset_format", "tokenizer", "chars_per_token", "skip_bad_records") if self.dataset is None else ()
        ):
            if getattr(self, name):
                yield Problem(name, "there is no file to read", "give --dataset")

    def _unfit_clients(self) -> Iterator[Problem]:
        several = len(self.mixture) > 1
        if self.dataset is not None and several:
            yield Problem("dataset", "has requests of its own, and there is a mixture of clients", "leave one out")
            return
        shares = [one.share is not None for one in self.mixture]
        if not several and shares[0]:
            yield Problem("share", "there is one client", "give it within mixture, or leave it out")
        elif any(shares) and not all(shares):
            yield Problem("share", "some clients of the mixture have one", "give each a share, or none")
        for one in self.mixture:
            yield from one.generates(self.dataset)

    def _endless(self) -> Iterator[Problem]:
        total = sum(one.share or 0.0 for one in self.mixture)
        for one in self.mixture:
            rate = (one.request_rate or math.inf) * ((one.share or 0.0) / total if one.share else 1.0)
            years = (self.req_num or SAMPLE_REQUESTS) / rate / 3.2e7
            if years > MOST_YEARS:
                what = f"{one.request_rate:g} requests/s would spread them over {years:.3g} years"
                yield Problem("request_rate", what, "give a higher rate")

    def _expected(self, seconds: float) -> float:
        rates = (one.request_rate or DEFAULT_RATE for one in self.mixture)
        return seconds * (max(rates) if self.mixture[0].share is not None else sum(rates))

    @property
    def count(self) -> int:
        """How many requests are made at most, where they are made here."""
        return self.req_num or (SAMPLE_REQUESTS if self.duration is None else MOST_GENERATED)

    @property
    def until_ns(self) -> int | None:
        """When the last requests arrive, ns; None: whenever."""
        return None if self.duration is None else round(self.duration * 1e9)

    def decided(self) -> WorkloadSettings:
        """Return the same with as many requests of the sample as there are by default."""
        left_open = self.dataset is not None or self.duration is not None
        return self if left_open else replace(self, req_num=self.req_num or SAMPLE_REQUESTS)


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
    compiled_engines: str = setting(
        "auto",
        "whether engines run as compiled loops: where they can in long runs, always, or never; results are the same",
        choices=("auto", "always", "never"),
        bearing="way",
    )
    macro_steps: int = setting(
        512,
        "like decode iterations simulated at once at most; results do not depend on it",
        least=1,
        bearing="way",
    )
    pricing: str | None = setting(
        None,
        "how iterations get their times: by tables filled from traced ones, or each by its own trace",
        choices=("compiled", "traced"),
        bearing="way",
        shown_default="compiled with the embedded backend, where no other backend checks it and no files are made",
    )
    exact_steps: bool = setting(
        False, "trace and simulate every iteration by itself: --pricing traced and --macro_steps 1", bearing="way"
    )

    @property
    def steps_at_once(self) -> int:
        """Like decode iterations that are simulated at once at most."""
        return 1 if self.exact_steps else self.macro_steps

    @property
    def asks_for_traces(self) -> bool:
        """Whether every iteration is to be traced because that was said."""
        return self.exact_steps or self.pricing == "traced"

    @property
    def makes_files(self) -> bool:
        """Whether every iteration's graph goes through files, or is left in them."""
        return self.trace_dir is not None or self.interface != "memory"

    def problems(self) -> Iterator[Problem]:
        """Who wants to see every iteration does not have tables."""
        if self.pricing != "compiled":
            return
        if self.exact_steps:
            yield Problem("exact_steps", "conflicts with --pricing compiled", "leave one out")
        if self.trace_dir is not None:
            yield Problem(
                "trace_dir", "has files of every iteration, which --pricing compiled does not trace", "leave one out"
            )
        if self.interface != "memory":
            yield Problem("interface", f"{self.interface} conflicts with --pricing compiled", "leave one out")


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
