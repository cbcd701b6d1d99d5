"""`--expert_routing file`: what a router was seen to do, from a CSV file of yours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from trace_gen.mlp.routings import routings

if TYPE_CHECKING:
    from trace_gen.architecture import ModelArchitecture
    from trace_gen.mlp.choices import ChosenRouting


@routings.register("file")
@dataclass(frozen=True)
class FileSettings:
    """Recorded tokens an expert. See `trace_gen.mlp.routings.file.recording`."""

    routing_file: Path | None = setting(
        None, "CSV of recorded tokens: layer,expert,tokens, or step,layer,expert,tokens", implies=True
    )

    def problems(self) -> Iterator[Problem]:
        """A file must be given."""
        if self.routing_file is None:
            yield Problem("expert_routing", "file needs a recording", "give its CSV file: --routing_file FILE")

    def routing(self, architecture: ModelArchitecture, seed: int) -> ChosenRouting:
        """Return the routing of the file; without one, or with one that does not fit the model, a `UserError`."""
        from trace_gen.mlp.choices import ChosenRouting
        from trace_gen.mlp.routings.file.choices import RecordedFrequencies, RecordedSteps
        from trace_gen.mlp.routings.file.recording import read_recording

        recording = read_recording(self.routing_file, architecture)
        choices = RecordedSteps(recording) if recording.by_step else RecordedFrequencies(recording, seed)
        return ChosenRouting("file", choices)
