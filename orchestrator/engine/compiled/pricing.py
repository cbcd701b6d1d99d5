"""The prices of a deployment as a compiled engine reads them: tables (`pricing.compiled`), and the host's terms."""

from __future__ import annotations

import numpy as np

from foundation.records import dataclass
from orchestrator.engine.compiled.layout import (
    KINDS,
    T_NEW_TOKENS,
    T_REQUESTS,
    T_SAMPLES,
    Attention,
    IntArray,
    Prices,
    Rules,
    State,
)
from orchestrator.engine.compiled.passing import ATTENTION, HOST
from orchestrator.pricing.compiled.tables import PriceTables
from orchestrator.pricing.graphs import CapturedGraphs
from orchestrator.pricing.host import HOST as HOST_CLASS
from orchestrator.pricing.host import HostTimes
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from trace_gen.attention_numbers import NO_ATTENTION


@dataclass(frozen=True, slots=True)
class HostTerms:
    """What the host adds (`orchestrator.pricing.host`): `launch_ns` ``[stages]`` of a step that is not a graph."""

    times: HostTimes
    graphs: CapturedGraphs
    launch_ns: tuple[int, ...]


class Prepared:
    """`tables` and `host` (None: it takes no time) of like engines."""

    def __init__(self, tables: PriceTables, host: HostTerms | None) -> None:
        self._tables = tables
        self._host = host
        self.classes: tuple[str, ...] = (*tables.classes, HOST_CLASS) if host else tuple(tables.classes)
        kinds = tables.attention
        self.attention: Attention = tuple(kinds[at][0] if at < len(kinds) else NO_ATTENTION for at in range(KINDS))  # type: ignore[assignment]
        self._layers = np.zeros((KINDS, tables.stages), dtype=np.int64)
        for at, (_, layers) in enumerate(kinds):
            self._layers[at] = layers
        self.prices = self._prices()

    def fill(self, tokens: int, samples: int) -> None:
        """Have it worked out what a batch of so many tokens, and of so many samples, takes beside attention."""
        self._tables.fill(tokens, samples)

    def busy_ns(self, state: State) -> IntArray:
        """Return the time by class of work of all batches since this was asked last, and forget them."""
        busy = np.zeros(len(self.classes), dtype=np.int64)
        own = busy[: len(self._tables.classes)]
        own += state.tokens_used @ self._tables.tokens_busy + state.samples_used @ self._tables.samples_busy
        busy[self._tables.attention_class] += state.spent[ATTENTION]
        if self._host is not None:
            busy[-1] += state.spent[HOST]
        state.tokens_used[:] = state.samples_used[:] = state.spent[:] = 0
        return busy

    def count_lookups(self, told: IntArray) -> None:
        """Count what was looked up for the iterations in these rows of `State.told`."""
        if self._tables.looks_up:
            ran = told[told[:, T_REQUESTS] > 0]
            self._tables.count_lookups(self._tables.padded[ran[:, T_NEW_TOKENS]], ran[:, T_SAMPLES])

    def rules(self, config: VllmSchedulerConfig) -> Rules:
        """Return the rules of an engine under `config` that these are the prices of."""
        host = self._host.times if self._host is not None else HostTimes()
        sizes = self._host.graphs.sizes if self._host is not None else ()
        return Rules(
            places=config.places,
            stages=self._tables.stages,
            ahead=int(config.decides_ahead),
            seats=config.max_num_seqs,
            budget=config.max_num_batched_tokens,
            threshold=config.long_prefill_token_threshold,
            chunked=int(config.enable_chunked_prefill),
            reserves=int(config.scheduler_reserve_full_isl),
            longest=config.max_model_len,
            block_size=config.block_size,
            blocks=config.num_gpu_blocks - 1,
            numbered=int(config.enable_prefix_caching),
            keeps_token_times=0,
            host_ns=host.step_ns,
            host_request_ns=host.request_ns,
            host_hidden=int(host.hidden),
            has_host=int(self._host is not None),
            largest_graph=sizes[-1] if sizes else 0,
        )

    def _prices(self) -> Prices:
        tables, host = self._tables, self._host
        launches = np.zeros(tables.stages, dtype=np.int64)
        if host is not None:
            launches[:] = host.launch_ns
        there = np.array([int(layers.any()) for layers in self._layers], dtype=np.int64)
        return Prices(tables.tokens_ns, tables.samples_ns, tables.padded, self._layers, there, launches)
