"""Models that ship with the project: one row each, and one in full, with where its configuration is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from foundation.documents import read_json
from foundation.printable import printable
from orchestrator.observers.tables import print_table
from trace_gen.architecture import ModelArchitecture
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.models import MODELS_FOLDER, load_model, shipped_models

Row = tuple[str, ...]
NONE = "-"
HEADER = (
    "model",
    "type",
    "parameters, 1e9",
    "layers",
    "hidden",
    "experts",
    "weights, GB",
    "KV, KiB a token",
    "positions",
)
_PAPERS = {
    "gpt3-": "Brown et al. 2020, Language Models are Few-Shot Learners, table 2.1",
    "opt-175b": "Zhang et al. 2022, OPT: Open Pre-trained Transformer Language Models, table 1",
}


def print_all(stream: TextIO) -> None:
    """Print a table of the shipped models: weights as they are stored, KV cache in 16 bits."""
    print_table("Models", HEADER, [model_row(load_model(name)) for name in shipped_models()], stream)


def all_as_json() -> dict[str, Any]:
    """Return the figures of each shipped model, by name."""
    aliases = _aliases()
    return {"models": {name: figures(load_model(name), aliases) for name in shipped_models()}}


def print_one(name: str, stream: TextIO) -> None:
    """Print the figures of one model, shipped or a user's own; an unknown name is a `UserError`."""
    model = load_model(name)
    rows: list[Row] = [(label.replace("_", " "), _shown(value)) for label, value in figures(model, _aliases()).items()]
    print_table(printable(model.name), ("", ""), rows, stream)


def one_as_json(name: str) -> dict[str, Any]:
    """Return the figures of one model."""
    return figures(load_model(name), _aliases())


def figures(model: ModelArchitecture, aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return the main figures of `model`; bytes are those of all ranks where there is one, KV cache in 16 bits."""
    memory = ModelMemory(model, Mesh())
    mixtures = [
        {"experts": one.count, "experts_per_token": one.per_token, "width": one.width} for one in model.mixtures
    ]
    return {
        "name": model.name,
        "model_type": model.model_type,
        "parameters": parameter_count(model),
        "layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "vocabulary": model.vocab_size,
        "positions": model.max_position,
        "attention": sorted({type(layer.attention).__name__ for layer in model.layers}),
        "mixtures": mixtures,
        "weight_bytes": memory.weight_bytes(0),
        "kv_bytes_per_token": memory.kv_bytes_per_token(0),
        "aliases": sorted(alias for alias, own in aliases.items() if own == model.name),
        "source": source_of(model.name),
    }


def model_row(model: ModelArchitecture) -> Row:
    """Return the main figures of a model as texts."""
    memory = ModelMemory(model, Mesh())
    experts = ", ".join(f"{one.per_token} of {one.count}" for one in model.mixtures)
    return (
        model.name,
        model.model_type,
        f"{parameter_count(model) / 1e9:.4g}",
        str(model.num_layers),
        str(model.hidden_size),
        experts or NONE,
        f"{memory.weight_bytes(0) / 1e9:.4g}",
        f"{memory.kv_bytes_per_token(0) / 2**10:.4g}",
        str(model.max_position),
    )


def source_of(name: str) -> str:
    """Return where the configuration of a shipped model is from; of another, that it is the user's."""
    if name not in shipped_models():
        return "the file that was given"
    paper = next((said for begins, said in _PAPERS.items() if name.startswith(begins)), None)
    return paper or f"Hugging Face, {name}: config.json"


def _aliases() -> Mapping[str, str]:
    found: Mapping[str, str] = read_json(MODELS_FOLDER / "aliases.json", "list of model aliases").value
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list):
        parts = (
            ", ".join(f"{key.replace('_', ' ')} {part}" for key, part in one.items())
            if isinstance(one, dict)
            else str(one)
            for one in value
        )
        return "; ".join(parts) or NONE
    return str(value)
