"""Where the tables are, and their rows: aiconfigurator's systems, as the package has them or in another folder.

    DIR/data/SYSTEM/FAMILY/FRAMEWORK/VERSION/NAME.parquet      (or NAME.csv, of the same columns)

Sizes are whole numbers, latencies milliseconds. A family has the tables of several versions of a framework; those of
the newest that has what is asked for count (the newest of all may have single operators of new models only).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError, near_names
from foundation.packages import package_folder
from foundation.records import dataclass
from trace_gen.config_root import is_file, is_folder
from trace_gen.measured.reading import MOST, MOST_TIME, WHAT, read_header, read_rows

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
PACKAGE, VERSION = "aiconfigurator-core", "0.12.0"
"""What was tried. Other versions may lay their tables out in another way."""
EXTRA = "pip install 'orrery-sim[aiconfigurator]'"
LATENCY = "latency"
_MS = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """Rows of one file: `sizes` by column, texts by column, and `times` (ns), each ``[n]``."""

    path: Path
    sizes: Mapping[str, IntArray]
    texts: Mapping[str, NDArray[np.str_]]
    times: FloatArray

    def where(self, **values: object) -> Kernels:
        """Return the rows that have these values."""
        chosen = np.ones(len(self.times), dtype=np.bool_)
        for name, value in values.items():
            column: NDArray[Any] = self.sizes[name] if name in self.sizes else self.texts[name]
            chosen &= column == value
        return self.only(chosen)

    def only(self, chosen: NDArray[np.bool_] | IntArray) -> Kernels:
        """Return some rows: those that are `chosen` ``[n]``, or whose places are given."""
        return Kernels(
            self.path,
            {name: column[chosen] for name, column in self.sizes.items()},
            {name: column[chosen] for name, column in self.texts.items()},
            self.times[chosen],
        )

    def distinct(self, *columns: str) -> list[tuple[int, ...]]:
        """Return the different values of some sizes, in order."""
        if not len(self.times):
            return []
        found = np.unique(np.stack([self.sizes[name] for name in columns], axis=1), axis=0)
        return [tuple(row) for row in found.tolist()]


@dataclass(frozen=True, slots=True)
class System:
    """One system's tables, of one framework. `source` is what notes call them."""

    folder: Path
    framework: str

    @property
    def source(self) -> str:
        """What notes call the tables."""
        return f"aiconfigurator, {self.folder.name}, {self.framework}"

    def read(
        self, family: str, name: str, sizes: Sequence[str], texts: Sequence[str] = (), *, anyone: bool = False
    ) -> Iterator[Kernels]:
        """Yield the rows of each file `name` of `family`, the newest first.

        `anyone`: then those of other frameworks. Columns of `sizes` that a file lacks are 0.
        """
        folder = self.folder / family
        others = sorted(one.name for one in _folders(folder) if one.name != self.framework) if anyone else []
        for framework in (self.framework, *others):
            for versioned in sorted(_folders(folder / framework), key=_age, reverse=True):
                for ending in ("parquet", "csv"):
                    path = versioned / f"{name}.{ending}"
                    if is_file(path):
                        yield (_parquet if ending == "parquet" else _csv)(path, sizes, texts)
                        break


def open_system(tables: Path | None, name: str, framework: str) -> System:
    """Return the system `name` in the folder `tables`, or in the package's; raises `UserError` where it is not."""
    if tables is None:
        fix = f"{EXTRA}, or give a folder of tables: --aiconfigurator_tables DIR"
        root = package_folder(PACKAGE, VERSION, "aiconfigurator_core", fix) / "systems"
    else:
        root = tables
    if not is_folder(root / "data"):
        what = "no folder of aiconfigurator's systems: it has no folder data"
        raise UserError(
            what, path=root, field="--aiconfigurator_tables", fix="give the folder that has data/SYSTEM/..."
        )
    known = sorted(one.name for one in _folders(root / "data") if any(one.glob("gemm/*/*/*")))
    if name not in known:
        raise UserError(
            f"no tables of a system {name[:80]!r}", field="--aiconfigurator_system", fix=near_names(name, known)
        )
    return System(root / "data" / name, framework)


def _folders(path: Path) -> list[Path]:
    return [one for one in path.iterdir() if one.is_dir()] if is_folder(path) else []


def _age(folder: Path) -> tuple[tuple[int, int, str], ...]:
    """Return what versions are ordered by: numbers as such, and a release after its candidates."""
    parts = re.findall(r"\d+|[a-z]+", folder.name.lower())
    ranked = [(1, int(part), "") if part.isdigit() else (0 if part in ("rc", "dev") else 2, 0, part) for part in parts]
    return (*ranked, (0, 1, ""))


def _csv(path: Path, sizes: Sequence[str], texts: Sequence[str]) -> Kernels:
    has = read_header(path)
    present = [name for name in sizes if name in has]
    rows = read_rows(path, (*present, *texts, LATENCY))
    read = dict(zip(present, rows.sizes(present).T, strict=True))
    none = np.zeros(len(rows.lines), dtype=np.int64)
    return Kernels(
        path,
        {name: read.get(name, none) for name in sizes},
        {name: np.array(rows.texts(name), dtype=np.str_) for name in texts},
        rows.times((LATENCY,), "milliseconds")[:, 0] * _MS,
    )


def _parquet(path: Path, sizes: Sequence[str], texts: Sequence[str]) -> Kernels:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"the {WHAT} is a Parquet file, which pyarrow reads", path=path, fix=EXTRA) from None
    try:
        has = set(parquet.read_schema(path).names)
        if missing := [name for name in (*texts, LATENCY) if name not in has]:
            raise UserError(f"the {WHAT} lacks the column {', '.join(missing)}", path=path)
        table = parquet.read_table(path, columns=[*(name for name in sizes if name in has), *texts, LATENCY])
    except (ArrowException, OSError) as error:
        raise UserError(f"no Parquet file that can be read: {str(error).splitlines()[0]}", path=path) from None
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    none = np.zeros(table.num_rows, dtype=np.int64)
    numbers = {name: _whole(path, name, columns[name]) if name in columns else none for name in sizes}
    times = np.asarray(columns[LATENCY], dtype=np.float64)
    kernels = Kernels(path, numbers, {name: columns[name].astype(np.str_) for name in texts}, times * _MS)
    # A few rows hold what failed to be measured; a size without a time is as good as absent.
    return kernels.only(np.isfinite(times) & (times > 0) & (times <= MOST_TIME))


def _whole(path: Path, name: str, column: NDArray[Any]) -> IntArray:
    numbers = np.asarray(column, dtype=np.float64)
    if not (np.isfinite(numbers).all() and (numbers >= 0).all() and (numbers <= MOST).all()):
        raise UserError(f"a size that is no whole number from 0 to {MOST}", path=path, field=name)
    return numbers.astype(np.int64)
