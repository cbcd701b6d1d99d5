"""What differs between versions of vLLM's scheduler, each difference a named rule."""

from __future__ import annotations

from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one version; `docs/vllm_scheduler.md` tells them in words."""

    reuses_partial_blocks_first: bool
    """Freed blocks that are not full go to the front of the free list, the others to its back."""

    limits_a_lone_prompt: bool
    """`long_prefill_token_threshold` counts for a request that is alone, too."""

    bounds_the_threshold: bool
    """`long_prefill_token_threshold` must not be above max_model_len."""

    goes_on_after_self_preemption: bool
    """Under `priority`, requests after one that preempted itself are still served in the same step."""

    follows_every_victim: bool
    """Of requests behind a victim none is passed over; else one is, unless the victim had been given tokens."""

    awaits_stale_tokens: bool
    """A preempted request whose tokens are still in flight is passed over until they have come."""

    keeps_in_flight_windows: bool
    """Blocks that batches in flight still read are not dropped from a window."""

    caps_window_admission: bool
    """A prompt that must fit whole is counted with no more blocks than its windows ever hold."""

    registers_window_ends: bool
    """Of a window's blocks those are registered that a prompt of the same length would look for, no others."""

    fills_the_queue: bool
    """The engine decides until its queue of batches is full, be it with decisions for nothing."""

    staggers_stages: bool
    """Asynchronous with pipeline stages: one batch more in flight, and a request decodes every so many decisions."""

    counts_all_adapters: bool
    """`max_loras` counts the adapters of all running requests; else of those that the step has given tokens."""

    keeps_skipped_apart: bool
    """Requests that were passed over for their adapter keep their place before those that are preempted later."""

    speculates: bool
    """Its speculative decoding is modelled."""

    connects: bool
    """What it does with KV cache that comes from elsewhere is modelled."""


RULES: dict[str, Rules] = {
    "0.19": Rules(
        reuses_partial_blocks_first=False,
        limits_a_lone_prompt=True,
        bounds_the_threshold=False,
        goes_on_after_self_preemption=False,
        follows_every_victim=False,
        awaits_stale_tokens=False,
        keeps_in_flight_windows=False,
        caps_window_admission=False,
        registers_window_ends=False,
        fills_the_queue=False,
        staggers_stages=False,
        counts_all_adapters=False,
        keeps_skipped_apart=True,
        speculates=True,
        connects=True,
    ),
    "0.33": Rules(
        reuses_partial_blocks_first=True,
        limits_a_lone_prompt=False,
        bounds_the_threshold=True,
        goes_on_after_self_preemption=True,
        follows_every_victim=True,
        awaits_stale_tokens=True,
        keeps_in_flight_windows=True,
        caps_window_admission=True,
        registers_window_ends=True,
        fills_the_queue=True,
        staggers_stages=True,
        counts_all_adapters=True,
        keeps_skipped_apart=False,
        speculates=False,
        connects=False,
    ),
}
