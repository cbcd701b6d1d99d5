"""Model families: one small file each says how a `model_type`'s config.json describes its architecture.

To add a family, write a module here that registers a reader; every module of this package is imported.
"""

from __future__ import annotations

from collections.abc import Callable

from foundation.fields import Fields
from foundation.registry import Registry
from trace_gen.architecture import ModelArchitecture

FamilyReader = Callable[[str, Fields], ModelArchitecture]
"""Takes the model's name and its config.json; problems go into the `Fields`, whose owner raises them together."""

TEXT_PART = "text_config"
"""Where multimodal models keep the fields of their decoder."""
MOST_LAYERS = 4096
"""No model comes near; a trace has rows for every layer."""
families: Registry[FamilyReader] = Registry("model_type", package="trace_gen.families")


def text_part(fields: Fields) -> Fields:
    """Return the fields of a multimodal model's decoder; that there are none is a problem of `fields`."""
    if not fields.has(TEXT_PART):
        fields.problem(f"{TEXT_PART} is missing", fix="give the fields of its decoder")
    return fields.object(TEXT_PART)
