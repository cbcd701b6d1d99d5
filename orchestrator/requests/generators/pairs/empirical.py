"""`--lengths empirical`: the lengths of rows of a file of requests, in any format that a run reads.

A prompt and its answer are of one row: in recorded traffic they belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import MOST_TOKENS
from orchestrator.requests.generators.pairs import PairPlace, length_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.pairs import Sampler
    from orchestrator.requests.generators.streams import Stream

_MOST_SCALE = 1000.0


@length_pairs.register("empirical")
@dataclass(frozen=True)
class Empirical:
    """Those of the rows of a file."""

    lengths_file: Path | None = setting(
        None, "file of requests whose lengths are taken", implies=True, shown_default="must be given"
    )
    lengths_order: str = setting(
        "drawn",
        "how its rows are taken: drawn with replacement, shuffled (each once before any comes again), or in the "
        "file's order, again from its beginning",
        choices=("drawn", "shuffled", "file"),
    )
    input_scale: float = setting(1.0, "factor of the prompts' tokens", above=0, most=_MOST_SCALE)
    output_scale: float = setting(1.0, "factor of the answers' tokens", above=0, most=_MOST_SCALE)
    max_request_tokens: int | None = setting(
        None,
        "tokens of a prompt and its answer at most; prompts are cut",
        unit="tokens",
        least=2,
        most=MOST_TOKENS,
        shown_default="no limit",
    )

    def problems(self) -> Iterator[Problem]:
        """There is a file."""
        if self.lengths_file is None:
            yield Problem("lengths_file", "no file is named", "give a file of requests")

    def sampler(self, place: PairPlace) -> Sampler:
        """See `LengthPairs`; what is wrong with the file is a `UserError`."""
        from orchestrator.requests.formats import read_requests

        assert self.lengths_file is not None, "checked by `problems`"
        table = read_requests(self.lengths_file).requests
        prompts = self._scaled(table.prompt_tokens, self.input_scale)
        outputs = self._scaled(table.output_tokens, self.output_scale)
        if self.max_request_tokens is not None:
            outputs = outputs.clip(1, self.max_request_tokens - 1)
            prompts = prompts.clip(1, self.max_request_tokens - outputs)
        rows = Rows(len(prompts), self.lengths_order, place.stream("row"))

        def draw(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            taken = rows.next(count)
            return prompts[taken], outputs[taken]

        return draw

    @staticmethod
    def _scaled(tokens: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
        """Return whole numbers of tokens, rounded down as Vidur does, at least 1."""
        import numpy as np

        return tokens if factor == 1.0 else np.clip(tokens * factor, 1, 10**9).astype(np.int64)


class Rows:
    """Which rows of a file are taken, one after another."""

    def __init__(self, rows: int, order: str, stream: Stream) -> None:
        self._rows, self._order, self._stream = rows, order, stream
        self._taken = 0
        self._shuffled: list[NDArray[np.int64]] = []

    def next(self, count: int) -> NDArray[np.int64]:
        """Return the next `count` rows."""
        import numpy as np

        if self._order == "drawn":
            return np.floor(self._stream.uniforms(count) * self._rows).astype(np.int64)
        places = np.arange(self._taken, self._taken + count, dtype=np.int64)
        self._taken += count
        if self._order == "file":
            return places % self._rows
        while count and len(self._shuffled) <= int(places[-1]) // self._rows:
            self._shuffled.append(np.argsort(self._stream.uniforms(self._rows), kind="stable"))
        return np.array([self._shuffled[at // self._rows][at % self._rows] for at in places.tolist()], dtype=np.int64)
