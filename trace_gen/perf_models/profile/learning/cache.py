"""What was learned, kept between runs: one file for each table and predictor, named by the content of both.

It only ever saves time: the name is a hash of the rows themselves, of the predictor with its settings, and of its
library's version, so that a measurement that changed is learned anew. A file is written whole or not at all, so two
runs may learn the same at once; one that is damaged is learned again, and a folder that cannot be written is not used.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from foundation.cache_folder import cache_folder
from foundation.errors import UserError
from foundation.files import atomic_write
from foundation.packages import version_of
from trace_gen.perf_models.profile.learning.interface import LIBRARY, Fitted, FloatArray, Predictor

_FORM = "1"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError)


def learned(predictor: Predictor, sizes: FloatArray, times: FloatArray) -> Fitted:
    """Return what `predictor` learns of `times` ``[n]`` at `sizes` ``[n, axes]``, from the cache where it is there."""
    path = cache_folder() / "learned" / f"{_key(predictor, sizes, times)}.npz"
    found = _read(path)
    if found is None:
        found = predictor.fit(sizes, times)
        _write(path, found)
    return found


def _key(predictor: Predictor, sizes: FloatArray, times: FloatArray) -> str:
    content = hashlib.sha256()
    said = f"{_FORM}\n{predictor.identity}\n{version_of(LIBRARY)}\n{sizes.shape}\n"
    for part in (said.encode(), np.ascontiguousarray(sizes).tobytes(), np.ascontiguousarray(times).tobytes()):
        content.update(part)
    return content.hexdigest()


def _read(path: Path) -> Fitted | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGED:
        return None


def _write(path: Path, fitted: Fitted) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **{name: np.asarray(value) for name, value in fitted.items()})
    try:
        with atomic_write(path, "wb") as stream:
            stream.write(content.getvalue())
    except UserError:
        return  # learned again next time
