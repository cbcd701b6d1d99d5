"""Models by name or path -> `ModelArchitecture`: Hugging Face ``config.json``, shipped or the user's own, or ONNX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import walk
from pathlib import Path

from foundation.documents import read_json
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.printable import brief, printable, shorten
from trace_gen.architecture import ModelArchitecture, absorbing, quantized
from trace_gen.attention.absorption import Absorption
from trace_gen.config_root import CONFIG_ROOT, is_file, is_folder
from trace_gen.families import families
from trace_gen.quantization import ONLINE
from trace_gen.quantization_config import read_quantization
from trace_gen.unread_fields import check_unread

MODELS_FOLDER = CONFIG_ROOT / "models"
_MOST_NEAR = 3
_ALIKE = 0.8
_LINE = re.compile(r"(?:Meta-)?([a-z]+(?:\d+(?![\d.])|-[a-z]+(?=-\d))?)", re.IGNORECASE)
"""What the names of a line of models begin with, whatever their size and variant."""


def load_model(name_or_path: str, quantization: str | None = None, mla: Absorption = "auto") -> ModelArchitecture:
    """Return the architecture of a shipped model (``org/name``, its last part, or an alias) or of a config file.

    `name_or_path` may also be a ``config.json`` or a folder that holds one. Spelling of shipped names is
    tolerant of case. `quantization`: the method (of `ONLINE`) by which an engine quantises a checkpoint that is not
    quantised; others change nothing. `mla`: the form of latent attention (`trace_gen.attention.absorption`), if it has
    any. Raises `UserError` for an unknown name (with near ones), an unsupported `model_type`, and wrong fields (all of
    them at once), among them those that change the work and that the family does not read (`trace_gen.unread_fields`).
    """
    path, name = _locate(name_or_path)
    fields = Fields.of(read_json(path, "model configuration"))
    model_type = fields.text("model_type")
    fields.finish()
    if model_type not in families:
        # No near names: gpt_neox is no gpt2, and llama4 no llama.
        raise UserError(
            f"{brief(model_type)} is not a supported architecture",
            fix=f"supported: {', '.join(families)}",
            path=path,
            field="model_type",
        )
    architecture = families.get(model_type)(name, fields)
    stored = read_quantization(fields, None if fields.problems else architecture.num_layers)
    notes = check_unread(fields, name)
    fields.finish()
    read = replace(absorbing(architecture, mla), notes=notes)
    return quantized(read, stored or ONLINE.get(quantization or ""))


def load_onnx_model(path: Path, quantization: str | None = None) -> ModelArchitecture:
    """Return the architecture of the decoder in an ONNX file; `quantization` as for `load_model`.

    Raises `UserError` where the ``onnx`` package is missing, for what is no ONNX file, and for a graph with work that
    an architecture cannot say, with the node.
    """
    from trace_gen.onnx.decoder import read_decoder

    architecture = read_decoder(path).architecture
    return architecture if architecture.quantization else quantized(architecture, ONLINE.get(quantization or ""))


def shipped_models() -> dict[str, Path]:
    """Return the configuration file of every model that ships with the project, by its full name."""
    # As strings: a hundred paths take five times as long to find, compare and cut.
    root = len(str(MODELS_FOLDER)) + 1
    found = [f"{folder}/{file}"[root:] for folder, _, files in walk(MODELS_FOLDER) for file in files]
    return {
        file.removesuffix(".json"): MODELS_FOLDER / file
        for file in sorted(found, key=lambda file: file.split("/"))
        if file.endswith(".json") and file != "aliases.json"
    }


def _locate(name_or_path: str) -> tuple[Path, str]:
    """Return the configuration file and the model's name."""
    path = Path(name_or_path)
    if is_file(path):
        return path, printable(path.resolve().parent.name if path.name == "config.json" else path.stem)
    if is_file(path / "config.json"):
        return path / "config.json", printable(path.resolve().name)
    if path.suffix == ".json":
        raise UserError("the model configuration does not exist", path=printable(str(path)), fix="check the path")
    shipped = shipped_models()
    by_name = {name.casefold(): name for name in shipped}
    by_name |= {name.rpartition("/")[2].casefold(): name for name in shipped}
    wanted = name_or_path.casefold()
    if wanted in by_name:
        return shipped[by_name[wanted]], by_name[wanted]
    aliases = read_json(MODELS_FOLDER / "aliases.json", "list of model aliases").value
    if wanted in aliases:
        return shipped[aliases[wanted]], aliases[wanted]
    if name_or_path and is_folder(path):
        fix = "name a checkpoint's folder, or its config.json"
        raise UserError("the folder holds no config.json", path=printable(str(path)), fix=fix)
    near = _near(name_or_path, [*aliases, *(full.rpartition("/")[2] for full in shipped)])
    known = f"did you mean {', '.join(near)}?" if near else f"shipped: {', '.join(_lines(shipped))}"
    raise UserError(f"unknown model {name_or_path[:80]!r}", fix=f"{known} (or give the path of a config.json)")


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that may be meant: all words alike, and of the same version (gpt_neox is no gpt2)."""
    from difflib import get_close_matches

    asked = shorten(name).rpartition("/")[2]
    words, version = _words(asked)
    found = {}
    for candidate in names:
        own, of_own = _words(candidate)
        alike = words and all(_known(word, own) for word in words)
        if alike and version in (None, of_own):
            found[candidate.casefold()] = candidate
    return [found[near] for near in get_close_matches(asked.casefold(), found, n=_MOST_NEAR, cutoff=0.0)]


def _words(name: str) -> tuple[list[str], str | None]:
    """Return the words of a model's name, and its first number: the version, or the size where there is none."""
    numbers = re.findall(r"\d+(?:\.\d+)?", name)
    words = [word for word in re.findall(r"[a-z]+", name.casefold()) if len(word) > 1]
    return words, numbers[0] if numbers else None


def _known(word: str, words: Sequence[str]) -> bool:
    """Whether one of `words` is meant by `word`, maybe mistyped; the name of a family is itself."""
    from difflib import get_close_matches

    return word in words or (word not in families and bool(get_close_matches(word, words, n=1, cutoff=_ALIKE)))


def _lines(names: Iterable[str]) -> list[str]:
    """Return what the names of models begin with, once for all their sizes and variants."""
    begun = (_LINE.match(name.rpartition("/")[2]) for name in sorted(names, key=str.casefold))
    return sorted({found[1].casefold(): found[1] for found in begun if found}.values(), key=str.casefold)
