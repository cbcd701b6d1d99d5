"""Fabrics (`--fabric`): from ``configs/fabrics/*.json``, a user's file like them, or output of NVIDIA's nccl-tests.

A file lists curves; `points` are bytes, increasing, and ns (what bytes mean: `orchestrator.fabrics.fabric`)::

    {"name": "...", "device": "...", "origin": "who measured, in short", "sources": {"nccl": "exactly"},
     "curves": [{"collective": "all_reduce", "ranks": 8, "source": "nccl", "points": [[256, 4600], [1024, 4550]]}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.documents import Document, parse_json
from foundation.errors import UserError, near_names
from foundation.fields import Fields
from foundation.files import decode, read_bytes
from foundation.printable import brief
from orchestrator.fabrics.fabric import COLLECTIVES, Curve, Fabric, whole
from orchestrator.fabrics.nccl_tests import is_output, read_folder, read_output
from trace_gen.config_root import CONFIG_ROOT, is_file, is_folder
from trace_gen.hardware import plain_name

FABRICS_FOLDER = CONFIG_ROOT / "fabrics"
MOST_RANKS = 2**20
LONGEST_NS = 1e12
LARGEST_BYTES = 2**50
_LARGEST_FILE = 8 * 2**20
_WHAT = "fabric file"
_PAIRS = "write [bytes, ns] pairs, bytes increasing"


def shipped_fabrics() -> dict[str, Path]:
    """Return the files of the fabrics that ship with the project, by name."""
    return {path.stem: path for path in sorted(FABRICS_FOLDER.glob("*.json"))}


def load_fabric(name_or_path: str) -> Fabric:
    """Return a shipped fabric by name (spelling is tolerant), or that of a file or folder.

    Raises `UserError` for an unknown name (with near ones) and for what is wrong in a file (all of it at once).
    """
    path = Path(name_or_path)
    if is_folder(path):
        return read_folder(path)
    if is_file(path) or path.suffix in (".json", ".txt"):
        return read_fabric(path)
    shipped = shipped_fabrics()
    for name, candidate in shipped.items():
        if plain_name(name) == plain_name(name_or_path):
            return read_fabric(candidate)
    near = near_names(name_or_path, shipped)
    guess = f"{near} " if near.startswith("did you mean") else ""
    fix = f"{guess}shipped: {', '.join(shipped)} (or give none, the path of a fabric file or of nccl-tests' output)"
    raise UserError(f"unknown fabric {name_or_path[:80]!r}", fix=fix)


def read_fabric(path: Path) -> Fabric:
    """Return the fabric described in `path`: ours, or output of nccl-tests."""
    text = decode(read_bytes(path, _WHAT, _LARGEST_FILE), path, _WHAT)
    if is_output(path, text):
        return read_output(path, text)
    return _read(parse_json(text, _WHAT, path), path.stem)


def _read(document: Document, name: str) -> Fabric:
    fields = Fields.of(document)
    fields.only({"name", "device", "origin", "curves", "sources"})
    sources = fields.object("sources")
    said = {one: sources.text(one) for one in sources.names()}
    name = fields.text("name", default=name)
    read = Fabric(
        name=name,
        device=fields.text("device", default=name),
        origin=fields.text("origin", default=document.path.name if isinstance(document.path, Path) else name),
        curves=_curves(fields, said),
        sources=said,
    )
    fields.finish()
    return read


def _curves(fields: Fields, sources: Mapping[str, str]) -> dict[str, dict[int, Curve]]:
    parts = fields.objects("curves")
    if not parts and fields.sound("curves"):
        fields.problem("no curves" if fields.has("curves") else "curves is missing", "curves", "write one or more")
    curves: dict[str, dict[int, Curve]] = {}
    for part in parts:
        part.only({"collective", "ranks", "source", "points"})
        collective = part.choice("collective", COLLECTIVES)
        ranks = part.integer("ranks", low=2, high=MOST_RANKS)
        source = part.text("source", default="")
        if source and source not in sources:
            part.problem(f"{brief(source)} is none of the sources", "source", near_names(source, sources))
        points = _points(part)
        if not part.sound("collective", "ranks"):
            continue
        if ranks in curves.get(collective, {}):
            part.problem(f"a second curve for {collective} over {ranks} ranks", "ranks", "leave one out")
        curves.setdefault(collective, {})[ranks] = whole(points or [(1, 1.0)], source)
    return curves


def _points(part: Fields) -> list[tuple[int, float]]:
    """Return the points of a curve; what is wrong first is told."""
    items = part.items("points")
    if not items and part.sound("points"):
        part.problem("no points", "points", _PAIRS)
    points: list[tuple[int, float]] = []
    for index, item in enumerate(items):
        wrong = _wrong_pair(item) or _wrong_order(item, points)
        if wrong:
            part.problem(
                f"entry {index}, {brief(item)}: {wrong}", "points", "write [bytes, ns] pairs, bytes increasing"
            )
            break
        points.append((int(item[0]), float(item[1])))
    return points


def _wrong_pair(item: Any) -> str:
    """Return what is wrong with a point, "" for nothing."""
    if not isinstance(item, list) or len(item) != 2:
        return "not two numbers"
    size, ns = item
    if type(size) is not int or not 1 <= size <= LARGEST_BYTES:
        return f"the bytes are no whole number from 1 to {LARGEST_BYTES}"
    if type(ns) not in (int, float) or not 0 < ns <= LONGEST_NS:
        return f"the ns are no number above 0, at most {LONGEST_NS:g}"
    return ""


def _wrong_order(item: Any, before: list[tuple[int, float]]) -> str:
    if before and item[0] == before[-1][0]:
        return f"{item[0]} bytes a second time"
    return "fewer bytes than the entry before" if before and item[0] < before[-1][0] else ""
