"""The flags that name such files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem

CLUSTER_FILES = ("cluster_config", "engine_config", "model_config")


@dataclass(frozen=True)
class ClusterFiles:
    """Files of other programs that a run's engines are read from."""

    cluster_config: Path | None = setting(
        None, "cluster file of LLMServingSim (JSON), whose instances are the engines", bearing="output"
    )
    engine_config: Path | None = setting(
        None,
        "arguments of a vLLM engine (JSON), which all engines have; what it leaves out is vLLM's default",
        bearing="output",
    )
    model_config: Path | None = setting(
        None,
        "config.json of the model that --cluster_config or --engine_config names",
        bearing="output",
    )

    @property
    def given(self) -> dict[str, Path]:
        """The files, by the names of their flags."""
        named = {name: getattr(self, name) for name in CLUSTER_FILES}
        return {name: path for name, path in named.items() if path is not None}

    def problems(self) -> Iterator[Problem]:
        """A model's file says what a name in another file stands for."""
        if self.model_config is not None and len(self.given) == 1:
            what = "no --cluster_config or --engine_config names the model that it describes"
            yield Problem("model_config", what, "give --model_name with this path")
