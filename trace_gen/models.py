"""Models by name or path: a Hugging Face ``config.json``, shipped or the user's own -> `ModelArchitecture`."""

from __future__ import annotations

from pathlib import Path

from foundation.documents import read_json
from foundation.errors import UserError, near_names
from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture
from trace_gen.config_root import CONFIG_ROOT
from trace_gen.families import families

MODELS_FOLDER = CONFIG_ROOT / "models"


def load_model(name_or_path: str) -> ModelArchitecture:
    """Return the architecture of a shipped model (``org/name``, its last part, or an alias) or of a config file.

    `name_or_path` may also be a ``config.json`` or a folder that holds one. Spelling of shipped names is
    tolerant of case. Raises `UserError` for an unknown name (with near ones), an unsupported `model_type`, and
    wrong fields (all of them at once).
    """
    path, name = _locate(name_or_path)
    fields = Fields.of(read_json(path, "model configuration"))
    model_type = fields.text("model_type")
    fields.finish()
    if model_type not in families:
        raise UserError(
            f"model_type {model_type!r} is not supported",
            fix=near_names(model_type, families),
            path=path,
            field="model_type",
        )
    architecture = families.get(model_type)(name, fields)
    fields.finish()
    return architecture


def shipped_models() -> dict[str, Path]:
    """Return the configuration file of every model that ships with the project, by its full name."""
    paths = sorted(MODELS_FOLDER.rglob("*.json"))
    return {
        path.relative_to(MODELS_FOLDER).as_posix().removesuffix(".json"): path
        for path in paths
        if path.name != "aliases.json"
    }


def _locate(name_or_path: str) -> tuple[Path, str]:
    """Return the configuration file and the model's name."""
    path = Path(name_or_path)
    if path.is_dir() and (path / "config.json").is_file():
        return path / "config.json", path.resolve().name
    if path.is_file():
        return path, path.resolve().parent.name if path.name == "config.json" else path.stem
    if path.suffix == ".json":
        raise UserError("the model configuration does not exist", path=path, fix="check the path")
    shipped = shipped_models()
    wanted = name_or_path.casefold()
    by_name = {name.casefold(): name for name in shipped}
    by_name |= {name.rpartition("/")[2].casefold(): name for name in shipped}
    aliases: dict[str, str] = {}
    if wanted not in by_name:
        aliases = read_json(MODELS_FOLDER / "aliases.json", "list of model aliases").value
    name = by_name.get(wanted) or aliases.get(wanted)
    if name is None:
        near = near_names(name_or_path, [*shipped, *aliases, *(full.rpartition("/")[2] for full in shipped)])
        raise UserError(f"unknown model {name_or_path!r}", fix=f"{near} (or give the path of a config.json)")
    return shipped[name], name
