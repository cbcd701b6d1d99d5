"""`--scheduling vllm`: as vLLM's v1 engine, with what `vllm serve` decides by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

from foundation.digits import decimal_number
from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.schedulers.server import ServerPolicy
from orchestrator.schedulers.settings import AdapterSlots, Machine, Place, ServerHost, policies
from orchestrator.schedulers.speculation import DRAFT_MODEL, METHODS, NGRAM, Speculation

if TYPE_CHECKING:
    from orchestrator.kv_memory.store import KVSpace
    from orchestrator.schedulers.acceptance import DrawnAcceptance
    from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig

_OF_SPECULATION = (
    "num_speculative_tokens",
    "speculative_method",
    "speculative_model",
    "acceptance_rate",
    "acceptance_per_position",
    "ngram_rate",
    "acceptance_seed",
)


@policies.register("vllm")
@dataclass(frozen=True)
class VllmSettings(ServerPolicy):
    """As vLLM's v1 engine. Names are vLLM's; see `orchestrator.schedulers.vllm.config`."""

    lock_step: ClassVar[bool] = True

    max_num_seqs: int | None = setting(
        None,
        "requests running at once",
        least=1,
        like=("max_batch",),
        shown_default="vLLM's for the device: 1024 from 70 GiB on, else 256",
    )
    max_num_batched_tokens: int | None = setting(
        None, "tokens a step", least=1, shown_default="vLLM's for the device: 8192 from 70 GiB on, else 2048"
    )
    gpu_memory_utilization: float | None = setting(
        None, "share of an NPU's memory that the engine takes", above=0, most=1, shown_default="0.9, or 0.92 for 0.33"
    )
    long_prefill_token_threshold: int = setting(0, "tokens of one prompt a step at most; 0: no limit", least=0)
    enable_prefix_caching: bool = setting(True, "reuse KV blocks of equal prefixes", aliases=("no_prefix_caching",))
    enable_chunked_prefill: bool | None = setting(
        None, "compute long prompts in chunks", aliases=("no_chunked_prefill",), shown_default="on"
    )
    async_scheduling: bool | None = setting(
        None,
        "decide a step while the step before still runs",
        shown_default="on, unless an n-gram search or a draft_model guesses tokens",
    )
    reserve_full_isl: bool = setting(
        True, "admit a prompt only if all of it fits", aliases=("scheduler_reserve_full_isl",)
    )
    policy: str = setting(
        "fcfs", "order of the waiting queue", choices=("fcfs", "priority"), aliases=("scheduling_policy",)
    )
    vllm_version: str = setting("0.19", "rule set", choices=("0.19", "0.33"))
    enable_lora: bool | None = setting(None, "serve requests with LoRA adapters", shown_default="off")
    max_loras: int | None = setting(
        None, "adapters of a step at most, each with a slot in memory", least=1, most=1024, shown_default="1"
    )
    max_lora_rank: int | None = setting(None, "rank of an adapter's slot", least=1, most=1024, shown_default="16")
    num_speculative_tokens: int | None = setting(
        None, "tokens guessed ahead for a request, each step", least=1, most=64, shown_default="none"
    )
    speculative_method: str | None = setting(
        None, "what guesses them", choices=METHODS, shown_default="none; needed with --num_speculative_tokens"
    )
    speculative_model: str | None = setting(
        None,
        "the drafter: shipped model, or the path of a config.json or its folder",
        shown_default="for eagle and mtp a layer like the model's last",
    )
    acceptance_rate: float | None = setting(
        None, "share of guessed tokens that are right where all before them are", least=0, most=1, shown_default="none"
    )
    acceptance_per_position: str | None = setting(
        None,
        "share of guesses that are right up to the first, second, ... token, as vLLM counts them: 0.8,0.6,0.45",
        like=("acceptance_rate",),
        shown_default="powers of --acceptance_rate",
    )
    ngram_rate: float | None = setting(
        None, "share of steps in which a search for an n-gram finds one", least=0, most=1, shown_default="1"
    )
    acceptance_seed: int | None = setting(
        None, "seed of the draws that decide which guesses are right", least=0, shown_default="0"
    )

    @property
    def reuses_prefixes(self) -> bool:
        """See `Policy.reuses_prefixes`."""
        return self.enable_prefix_caching

    @property
    def speculation(self) -> Speculation | None:
        """See `Policy.speculation`."""
        if self.num_speculative_tokens is None or self.speculative_method is None:
            return None
        return Speculation(self.num_speculative_tokens, self.speculative_method, self.speculative_model)

    @property
    def adapter_slots(self) -> AdapterSlots | None:
        """See `Policy.adapter_slots`; vLLM's defaults where nothing is said."""
        return AdapterSlots(self.max_loras or 1, self.max_lora_rank or 16) if self.enable_lora else None

    @property
    def host(self) -> ServerHost:
        """See `Policy.host`.

        Without asynchronous scheduling the device waits 4 to 5 ms between steps, with few requests and with many
        (github.com/vllm-project/vllm, issues 6854 and 20727). Launching an operator of a compiled model is some three
        calls of PyTorch at 10 to 15 us each, an estimate. Eager servers compile nothing: the text model of
        Qwen2.5-Omni-7B decodes in 22 to 23 ms on an A800, 13 ms with graphs (github.com/vllm-project/vllm-omni, issue
        7960), which less the 4 ms are some 70 us for each of its 255 operators. Graphs are captured up to
        twice `max_num_seqs`, 512 tokens at most (`VllmConfig._set_cudagraph_sizes`).
        """
        largest = min(2 * (self.max_num_seqs or 256), 512)
        return ServerHost(4000.0, 4.0, 40.0, 70.0, hidden=self.runs_ahead, largest_graph=largest)

    @property
    def unconnected(self) -> str | None:
        """See `Policy.unconnected`."""
        if self.vllm_version != "0.19":
            return f"it is not modelled for --vllm_version {self.vllm_version}"
        return None if self.speculation is None else "it is not modelled with --num_speculative_tokens"

    def problems(self) -> Iterator[Problem]:
        """What is said of speculation is said whole, and of nothing else; adapters are asked for."""
        for name in ("max_loras", "max_lora_rank"):
            if getattr(self, name) is not None and not self.enable_lora:
                yield Problem(name, "no adapters are served", "give --enable_lora, or leave it out")
        given = {name for name in _OF_SPECULATION if getattr(self, name) is not None}
        needed = {"num_speculative_tokens", "speculative_method"}
        if not given:
            return
        for name in sorted(needed - given):
            yield Problem(name, f"missing beside --{min(given)}", "give it")
        if not {"acceptance_rate", "acceptance_per_position"} & given:
            yield Problem("acceptance_rate", "nothing says how many guessed tokens are right", "give it, as measured")
        elif needed <= given:
            yield from self._wrong_rates()
        if self.vllm_version != "0.19":
            what = f"speculation is not modelled for {self.vllm_version}"
            yield Problem("vllm_version", what, "use 0.19")
        if self.speculative_method == DRAFT_MODEL and self.speculative_model is None:
            yield Problem("speculative_model", "missing: draft_model is a model of its own", "name it")
        if self.speculative_method == NGRAM and self.speculative_model is not None:
            yield Problem("speculative_model", "an n-gram search has no model", "leave it out")
        if self.speculative_method != NGRAM and self.ngram_rate is not None:
            yield Problem("ngram_rate", f"{self.speculative_method} searches for no n-gram", "leave it out")

    def _wrong_rates(self) -> Iterator[Problem]:
        """Return what is wrong with the shares by position."""
        text, tokens = self.acceptance_per_position, self.num_speculative_tokens
        if text is None:
            return
        rates = _rates(text)
        if self.acceptance_rate is not None:
            yield Problem("acceptance_per_position", "says what --acceptance_rate says, too", "leave one out")
        elif rates is None or len(rates) != tokens or any(low > high for high, low in pairwise((1.0, *rates))):
            what = f"{text!r} is not {tokens} numbers from 1 to 0, none above the one before it"
            yield Problem("acceptance_per_position", what, "give one for each guessed token, with commas between")

    def decided(self, machine: Machine) -> Self:
        """Return the same with vLLM's own defaults for the device and the version."""
        from orchestrator.schedulers.vllm.server import step_limits, utilization

        limits = step_limits(
            self.vllm_version,
            machine.device,
            machine.memory_bytes,
            machine.max_model_len,
            chunked_prefill=self.enable_chunked_prefill is not False,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
        )
        share = self.gpu_memory_utilization
        if share is None and self.num_gpu_blocks_override is None:
            share = utilization(self.vllm_version)
        made = replace(
            self,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            gpu_memory_utilization=share,
            enable_chunked_prefill=self.enable_chunked_prefill is not False,
        )
        made = replace(made, async_scheduling=made.runs_ahead)
        made.check(machine.max_model_len)
        return made

    @property
    def runs_ahead(self) -> bool:
        """Whether a step is decided while the step before still runs: vLLM's default, unless the user says."""
        if self.async_scheduling is None:
            return self.speculation is None or self.speculation.runs_ahead_by_default
        return self.async_scheduling

    def check(self, max_model_len: int) -> None:
        """Refuse what vLLM's configuration refuses, by the names of the flags, before memory is divided."""
        from orchestrator.kv_memory.store import KVSpace

        try:
            self._config(KVSpace(1, self.default_block_size, 0, max_model_len), max_model_len, 1)
        except UserError as error:
            raise UserError(error.what, field=f"--{error.field}", fix=error.fix) from None

    @property
    def step_tokens(self) -> int | None:
        """See `ServerPolicy.step_tokens`."""
        return self.max_num_batched_tokens

    def scheduler(self, place: Place) -> VllmScheduler:
        """Return vLLM's scheduler."""
        from orchestrator.schedulers.vllm import VllmScheduler

        if self.speculation is not None and place.pipeline > 1:
            raise UserError(
                f"speculation is not modelled on {place.pipeline} stages",
                field="--pipeline_parallel_size",
                fix="give 1 (--npu_group 1)",
            )
        config = self._config(place.space, place.model_len, place.pipeline)
        return VllmScheduler(config, place.groups, self._acceptance(), place.connector)

    def _acceptance(self) -> DrawnAcceptance | None:
        """Return what decides which guessed tokens are right; None where none are guessed."""
        if self.speculation is None:
            return None
        from orchestrator.schedulers.acceptance import DrawnAcceptance

        rates = _rates(self.acceptance_per_position or "")
        if rates is None:
            rates = [(self.acceptance_rate or 0.0) ** place for place in range(1, self.speculation.tokens + 1)]
        found = 1.0 if self.ngram_rate is None else self.ngram_rate
        return DrawnAcceptance(self.acceptance_seed or 0, rates, found)

    def _config(self, space: KVSpace, model_len: int, pipeline: int) -> VllmSchedulerConfig:
        """Return vLLM's configuration; one block more than fit, because vLLM counts its null block.

        Limits of a step that nobody decided are `VllmSchedulerConfig`'s own.
        """
        from orchestrator.schedulers.vllm import VllmSchedulerConfig

        given = {"max_num_seqs": self.max_num_seqs, "max_num_batched_tokens": self.max_num_batched_tokens}
        limits: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return VllmSchedulerConfig(
            num_gpu_blocks=space.total_blocks + 1,
            max_model_len=space.max_model_len or model_len,
            block_size=space.block_size,
            pipeline_stages=pipeline,
            long_prefill_token_threshold=self.long_prefill_token_threshold,
            enable_prefix_caching=self.enable_prefix_caching,
            enable_chunked_prefill=self.enable_chunked_prefill is not False,
            async_scheduling=self.async_scheduling,
            scheduler_reserve_full_isl=self.reserve_full_isl,
            policy=self.policy,
            version=self.vllm_version,
            max_loras=self.adapter_slots.count if self.adapter_slots is not None else 0,
            num_speculative_tokens=self.num_speculative_tokens or 0,
            speculative_method=self.speculative_method,
            **limits,
        )


def _rates(text: str) -> list[float] | None:
    """Return the numbers of a list with commas between; None where it is none."""
    numbers = [decimal_number(part.strip()) for part in text.split(",")]
    return None if None in numbers else [number for number in numbers if number is not None]
