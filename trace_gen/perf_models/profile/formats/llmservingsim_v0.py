"""The CSV of LLMServingSim v0.2.1, as `--perf_model table_v0` reads it: the file, or a folder with no other one."""

from __future__ import annotations

from pathlib import Path

from foundation.errors import InternalError, UserError
from trace_gen.measured.reading import read_header
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.formats import ProfileFormat, profile_formats
from trace_gen.perf_models.table_v0.table import COLUMNS, TableV0Model, devices_of, load_table_v0


def _tables(path: Path) -> list[Path]:
    """Return the file, or those of a folder, that have the columns."""
    candidates = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return [one for one in candidates if one.is_file() and _has_columns(one)]


def _has_columns(path: Path) -> bool:
    try:
        return set(COLUMNS) <= set(read_header(path))
    except UserError:
        return False


def _recognises(path: Path) -> bool:
    return len(_tables(path)) == 1


def _table(path: Path) -> Path:
    tables = _tables(path)
    if len(tables) != 1:
        raise InternalError(f"{path} holds {len(tables)} tables")
    return tables[0]


def _device(path: Path) -> str | None:
    devices = devices_of(_table(path))
    return devices.pop() if len(devices) == 1 else None


def _model(options: PerfModelOptions, path: Path) -> TableV0Model:
    return load_table_v0(options, _table(path))


profile_formats.register("llmservingsim_v0")(
    ProfileFormat(
        "one CSV file with hardware,model,layer_name,... (LLMServingSim v0.2.1)", _recognises, _device, _model
    )
)
