"""The summary of a run: its figures, as a typed record that is also what the JSON file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import Any

from foundation.records import dataclass
from orchestrator.clients import ClientTerms
from orchestrator.observers.account import TimeAccount
from orchestrator.observers.requests import RequestRecorder, Totals
from orchestrator.statistics import Distribution, distribution

Figures = Mapping[str, float]
"""Mean and percentiles of a latency, ms (`orchestrator.statistics.STATISTICS`)."""
LATENCIES = {
    "ttft_ms": "TTFT",
    "tpot_ms": "TPOT",
    "itl_ms": "ITL",
    "latency_ms": "end-to-end",
    "queuing_delay_ms": "queuing delay",
}
"""The latencies of a summary, by the names they have in files, and as people write them."""
CLIENT_LATENCIES = {"client_ttft_ms": "TTFT at the client", "client_latency_ms": "end-to-end at the client"}
"""Those that are there where a run says what a client sees besides the engine."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the summary says of a run besides its measurements. `error`: why it ended early, if it did.

    `deployed`: the NPUs of each kind of engine and how they share the model, in words; `tensor`, `pipeline`, `context`,
    `expert`, `data` are None where engines differ in them.
    """

    model: str
    hardware: str
    npus: int
    deployed: Sequence[str]
    tensor: int | None
    pipeline: int | None
    context: int | None = 1
    expert: int | None = 1
    data: int | None = 1
    engines: int = 1
    step_limits: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DraftFigures:
    """What became of tokens that were guessed ahead, counted as vLLM counts them.

    `tokens_a_step`: of a request that had some, right ones and the one that every step brings.
    """

    drafted_tokens: int
    accepted_tokens: int
    acceptance_rate: float
    tokens_a_step: float


@dataclass(frozen=True, slots=True)
class ScalingFigures:
    """What became of instances that are started and dropped.

    `started_s`: how long each was not asleep, `npu_seconds` the same over all their NPUs; `events`: when (s) which
    engine began to start, to take requests (active), to take no more (draining), and slept.
    """

    npu_seconds: float
    started_s: Sequence[float]
    events: Sequence[Mapping[str, float | int | str]]


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """What became of requests beside the engines; None where nothing of the kind is there.

    `unreleased`: turns that never came because one before them had no answer. `retrieval_ms`: time from arrival until
    what was retrieved was there.
    """

    unreleased: int = 0
    retrieval_ms: Figures | None = None
    scaling: ScalingFigures | None = None


@dataclass(frozen=True, slots=True)
class TransferFigures:
    """KV cache that went from engines that computed prompts to those that went on: how often, and over all ranks.

    `mean_ms`: from when a decode engine had room for it until it was there, of which it waited `mean_waiting_ms` for
    network cards that moved others.
    """

    transfers: int
    bytes: int
    mean_ms: float
    mean_waiting_ms: float


@dataclass(frozen=True, slots=True)
class TierFigures:
    """KV cache that went to `tiers` beyond device memory and came back, in bytes over all ranks.

    - `written_bytes`, `loaded_bytes`: to and from them; `hit_tokens`: of prefixes that were found there, and loaded;
    - `evicted_blocks`: that made room for others in a tier;
    - `peak_bytes`: the most that was held at once, summed over the tiers, each at its own time.
    """

    tiers: int
    written_bytes: int
    loaded_bytes: int
    hit_tokens: int
    evicted_blocks: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class LookupFigures:
    """Times that were looked up in measured tables, what was remembered not counted again: at sizes that were measured,
    between them, and outside of them; `roofline`: those that no table has; and the same for each of the `operators`.

    `off_percent`: how far kernel tables say that times between their sizes are off, by class of operators: `mean` and
    `most` (of several tables the greater); None where no table says it.
    """

    measured: int
    interpolated: int
    extrapolated: int
    roofline: int
    operators: Mapping[str, Mapping[str, int]]
    off_percent: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a run: latencies in ms (None where there are none), throughput over the makespan.

    Up to `error` they are what `RunFacts` says.
    `step_limits`: what a step of every engine holds at most, by what is counted (requests, tokens), as far as there is
    a limit that all share. `simulated_time_s`: where the engines' time went, summed over them: classes of work,
    ``waiting``, ``idle``, ``asleep``. `drafts`, `transfers`, `kv_tiers` and `lookups` are None where there were none,
    `traffic` where there is nothing to tell.
    """

    model: str
    hardware: str
    npus: int
    deployed: Sequence[str]
    tensor: int | None
    pipeline: int | None
    context: int | None
    expert: int | None
    data: int | None
    engines: int
    step_limits: Mapping[str, int]
    skipped: int
    complete: bool
    error: str | None
    finished_requests: int
    rejected_requests: int
    aborted_requests: int
    makespan_s: float
    ttft_ms: Figures | None
    tpot_ms: Figures | None
    itl_ms: Figures | None
    latency_ms: Figures | None
    queuing_delay_ms: Figures | None
    requests_per_s: float | None
    prompt_tokens: int
    generated_tokens: int
    prompt_tokens_per_s: float | None
    generated_tokens_per_s: float | None
    iterations: int
    kv_blocks: int
    peak_kv_blocks: int
    preemptions: int
    evictions: int
    evicted_bytes: int
    reloaded_bytes: int
    simulated_time_s: Mapping[str, float]
    drafts: DraftFigures | None = None
    traffic: TrafficFigures | None = None
    transfers: TransferFigures | None = None
    kv_tiers: TierFigures | None = None
    lookups: LookupFigures | None = None
    client_ttft_ms: Figures | None = None
    client_latency_ms: Figures | None = None

    def latency(self, name: str) -> Figures | None:
        """Return the figures of one of `LATENCIES`, or of `CLIENT_LATENCIES`."""
        figures: Figures | None = getattr(self, name)
        return figures

    def as_json(self) -> dict[str, Any]:
        """Return the summary as its file holds it."""
        document = asdict(self)
        for seldom in ("drafts", "traffic", "transfers", "kv_tiers", "lookups", *CLIENT_LATENCIES):
            if document[seldom] is None:
                del document[seldom]
        if self.lookups is not None and self.lookups.off_percent is None:
            del document["lookups"]["off_percent"]
        return document


def summarise(
    recorder: RequestRecorder,
    account: TimeAccount,
    facts: RunFacts,
    traffic: TrafficFigures | None = None,
    kv_tiers: TierFigures | None = None,
    lookups: LookupFigures | None = None,
    client: ClientTerms | None = None,
) -> Summary:
    """Return the summary of what was recorded; `client` says what a client waits for outside of the engine."""
    columns, totals = recorder.columns(), recorder.totals
    seconds = totals.end_ns / 1e9
    finished = len(columns["id"])
    several = columns["output"] > 1
    outside = None if client is None else client.outside_ns(columns["input"]) - columns["arrival"]
    tpot = (columns["end"] - columns["first_token"])[several] / (columns["output"] - 1)[several]

    def per_second(amount: int) -> float | None:
        return amount / seconds if seconds else None

    return Summary(
        **{name: value for name, value in asdict(facts).items() if name != "error"},
        complete=facts.error is None,
        error=facts.error,
        finished_requests=finished,
        rejected_requests=totals.rejected,
        aborted_requests=totals.aborted,
        makespan_s=seconds,
        ttft_ms=_milliseconds(distribution(columns["first_token"] - columns["arrival"])),
        tpot_ms=_milliseconds(distribution(tpot)),
        itl_ms=_milliseconds(recorder.itl.distribution()),
        latency_ms=_milliseconds(distribution(columns["end"] - columns["arrival"])),
        queuing_delay_ms=_milliseconds(distribution(columns["scheduled"] - columns["arrival"])),
        requests_per_s=per_second(finished),
        prompt_tokens=totals.prompt_tokens,
        generated_tokens=totals.generated_tokens,
        prompt_tokens_per_s=per_second(totals.prompt_tokens),
        generated_tokens_per_s=per_second(totals.generated_tokens),
        iterations=totals.iterations,
        kv_blocks=recorder.kv_blocks,
        peak_kv_blocks=recorder.peak_kv_blocks,
        preemptions=totals.preemptions,
        evictions=totals.evictions,
        evicted_bytes=totals.evicted_bytes,
        reloaded_bytes=totals.reloaded_bytes,
        simulated_time_s={name: spent / 1e9 for name, spent in account.parts().items()},
        drafts=_drafts(totals),
        traffic=traffic,
        transfers=_transfers(totals),
        kv_tiers=kv_tiers,
        lookups=lookups,
        client_ttft_ms=None if outside is None else _milliseconds(distribution(columns["first_token"] + outside)),
        client_latency_ms=None if outside is None else _milliseconds(distribution(columns["end"] + outside)),
    )


def _drafts(totals: Totals) -> DraftFigures | None:
    if not totals.drafted_tokens:
        return None
    drafted, accepted = totals.drafted_tokens, totals.accepted_tokens
    return DraftFigures(drafted, accepted, accepted / drafted, 1 + accepted / totals.verified)


def _transfers(totals: Totals) -> TransferFigures | None:
    if not totals.transfers:
        return None
    mean, waiting = (spent / totals.transfers / 1e6 for spent in (totals.transfer_ns, totals.transfer_waiting_ns))
    return TransferFigures(totals.transfers, totals.transferred_bytes, mean, waiting)


def _milliseconds(values: Distribution | None) -> Figures | None:
    return values.scaled(1e-6) if values is not None else None
