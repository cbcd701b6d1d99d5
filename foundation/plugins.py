"""Files of others that add choices: Python whose classes register themselves when it is loaded.

A choice registers itself with its registry (`foundation.registry`) wherever its file stands: in the package that holds
its like, or anywhere else, named by a user. Both are the same file.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from foundation.errors import InternalError, OrreryError, UserError
from foundation.files import read_text

_LOADED: dict[str, ModuleType] = {}


def load_plugin(path: Path) -> bool:
    """Load a Python file, or every ``*.py`` of a folder in order of their names; return whether any of them is new.

    A file is loaded once, however often it is named. One that is missing, is no Python or fails is a `UserError` with
    the line.
    """
    files = [path]
    if os.path.isdir(path):  # noqa: PTH112  (a name that is too long is no folder, and no error here)
        files = sorted(path.glob("*.py"))
        if not files:
            raise UserError("the folder holds no .py files", path=path, fix="name a plugin, or a folder of them")
    new = [file for file in files if os.path.realpath(file) not in _LOADED]
    for file in new:
        _load(file)
    return bool(new)


def _load(path: Path) -> None:
    source = read_text(path, "plugin")
    # Known to Python by a name of its own, for `dataclass` and `pickle` look a class's module up.
    module = ModuleType(f"plugin_{len(_LOADED)}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = _LOADED[os.path.realpath(path)] = module
    try:
        _run(source, path, module)
    except BaseException:
        del sys.modules[module.__name__], _LOADED[os.path.realpath(path)]  # named again, it fails again
        raise


def _run(source: str, path: Path, module: ModuleType) -> None:
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except OrreryError:
        raise
    except SyntaxError as error:
        raise UserError(f"not valid Python: {error.msg}", path=path, line=error.lineno) from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
        said = str(error) if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
        raise UserError(f"the plugin fails: {said}", path=path, line=line) from error
