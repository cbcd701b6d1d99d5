"""Speculative decoding as vLLM schedules it: what the ways to guess tokens ahead have in common, and what not.

Each step verifies the drafts that were made after the one before: it computes a request's last token and its drafts at
once. The drafts up to the first that is wrong are kept, and one token more, which the verification itself brings; the
KV slots of the others are written anew.
"""

from __future__ import annotations

from typing import Protocol

from foundation.records import dataclass
from orchestrator.requests.request import Request

NGRAM, DRAFT_MODEL, EAGLE, MTP = "ngram", "draft_model", "eagle", "mtp"
METHODS = (NGRAM, DRAFT_MODEL, EAGLE, MTP)


@dataclass(frozen=True, slots=True)
class Speculation:
    """`tokens` drafts a request and step at most, made by `method` (`METHODS`). vLLM's names are in brackets.

    `model`: the name or path of the drafter's model; None where it is a head of the model itself, or no model.
    """

    tokens: int
    method: str
    model: str | None = None

    @property
    def has_layers(self) -> bool:
        """Whether the drafter is a model, which the device computes."""
        return self.method != NGRAM

    @property
    def lookahead(self) -> int:
        """Slots of the KV cache beyond what is computed, for a drafter that has layers (num_lookahead_tokens)."""
        return self.tokens if self.has_layers else 0

    @property
    def slots(self) -> int:
        """Tokens of a batch that the drafter adds for each request (max_num_new_slots_for_drafting)."""
        return int(self.method == DRAFT_MODEL)

    @property
    def drops_last_hit(self) -> bool:
        """Whether the last block of a prefix is computed anew: its hidden states are needed (use_eagle)."""
        return self.method in (EAGLE, MTP)

    @property
    def may_run_ahead(self) -> bool:
        """Whether steps can be decided before the drafts are there."""
        return self.has_layers

    @property
    def runs_ahead_by_default(self) -> bool:
        """Whether they are unless the user says otherwise."""
        return self.method in (EAGLE, MTP)


class Acceptance(Protocol):
    """What becomes of drafts: the model's knowledge, which a policy has not. Answers depend on nothing but arguments.

    `position`: how many tokens of the request's answer were known before the drafts.
    """

    def proposed(self, request: Request, position: int, most: int) -> int:
        """Return how many drafts a search of the known tokens finds, 0 to `most`."""

    def accepted(self, request: Request, position: int, drafts: int) -> int:
        """Return how many of `drafts` tokens in a row are right, 0 to `drafts`."""
