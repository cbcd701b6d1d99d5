"""How much of what running requests may still ask for is set aside for them (SGLang's new_token_ratio).

It begins at 0.7 times `schedule_conservativeness`, falls with every decode to 0.14 of that in 600 steps, begins anew
when the server is idle, and follows from the answers so far when memory had been promised twice. (The figures are
defaults of SGLang's environment variables: SGLANG_INIT_NEW_TOKEN_RATIO and its like.)
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.schedulers.sglang.entry import Entry

RETRACT_STEPS = 20
"""Steps for which there is to be room after a retraction (SGLANG_RETRACT_DECODE_STEPS)."""
_FIRST, _LEAST_OF_FIRST, _STEPS = 0.7, 0.14, 600


class NewTokenRatio:
    """See the module's docstring; `value` is from 0 to 1."""

    def __init__(self, conservativeness: float) -> None:
        self._first = min(_FIRST * conservativeness, 1.0)
        self._least = min(self._first * _LEAST_OF_FIRST, 1.0)
        self._fall = (self._first - self._least) / _STEPS
        self.value = self._first

    def reset(self) -> None:
        """Begin anew."""
        self.value = self._first

    def decay(self, steps: int = 1) -> None:
        """Fall by so many decodes, one after another: floating-point numbers keep their rounding."""
        for _ in range(steps):
            if self.value == self._least:
                return
            self.value = max(self.value - self._fall, self._least)

    def estimate(self, running: Sequence[Entry]) -> None:
        """Follow from the answers of those that go on after a retraction; from the beginning where nobody does."""
        if not running:
            self.reset()
            return
        decoded = sum(entry.output for entry in running)
        allowed = sum(entry.limit for entry in running)
        self.value = min(1.0, (decoded + RETRACT_STEPS * len(running)) / (allowed + 1))
