"""`orrery profile-model`: enters a model into the estimator's registry: bytes of its weights and of a token's KV cache.

orrery profile-model --model_name facebook/opt-6.7b
orrery profile-model --model_name path/to/config.json --fp 8
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.catalogue import catalogue
from foundation.settings.command_line import help_text, parse
from foundation.settings.reading import Layers, read
from orchestrator.commands import Command, commands
from orchestrator.settings.engine import KV_DTYPES


@dataclass(frozen=True)
class ProfileModelSettings:
    """What the command is asked for."""

    model_name: str | None = setting(
        None,
        "shipped model, or the path of a config.json or its folder",
        aliases=("model",),
        shown_default="must be given",
    )
    fp: int = setting(16, "bits of weights and KV cache", choices=("4", "8", "16", "32"))
    kv_cache_dtype: str = setting(
        "auto", "the KV cache's own numbers, where they differ, by vLLM's names", choices=("auto", *KV_DTYPES)
    )
    registry: Path = setting(Path("data"), "folder of model.json", folder=True)


def run(arguments: Sequence[str]) -> int:
    """Enter the model that the command line names; return 0."""
    if {"-h", "--help"} & set(arguments):
        print(
            help_text(
                catalogue(ProfileModelSettings),
                "main.py profile-model --model_name M [FLAGS]",
                "Enter a model into model.json of the estimator's registry, from its config.json.",
                "A checkpoint that says it is quantised is entered with the bytes of its matrices as they are stored. "
                "See docs/estimator.md.",
            )
        )
        return 0
    _enter(read(ProfileModelSettings, Layers(flags=parse(arguments, catalogue(ProfileModelSettings)))))
    return 0


def _enter(wanted: ProfileModelSettings) -> None:
    from orchestrator.estimating.entries import left_out, model_entry
    from orchestrator.estimating.registries import Registries
    from trace_gen.models import load_model

    if wanted.model_name is None:
        raise UserError("no model is named", field="--model_name", fix="give one")
    architecture = load_model(wanted.model_name)
    config = str(Path(wanted.model_name).resolve()) if Path(wanted.model_name).exists() else None
    entry = model_entry(architecture, wanted.fp, KV_DTYPES.get(wanted.kv_cache_dtype, wanted.fp), config)
    registries = Registries(wanted.registry)
    registries.add_model(entry)
    for note in left_out(architecture):
        print(f"note: {note}", file=sys.stderr)
    weights, kept = f"{entry.weight_bytes / 1e9:.3f} GB", f"{entry.kv_bytes_per_token / 1e3:.3f} kB"
    print(f"{registries.models}: {entry.name}, weights {weights}, KV cache of a token {kept}")


commands.register("profile-model")(Command("enter a model for estimate", run))
