"""The files of other programs, a run file and flags, as one: whoever says a value twice says the same.

An engine is what the cluster file's instance and the engine's arguments say together, and those must agree. A run file
and flags say the rest (workload, output, policy); of what those files say they may repeat the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.errors import UserError
from foundation.printable import brief
from foundation.settings import Setting
from foundation.settings.catalogue import Catalogue
from foundation.settings.reading import Given, Layers, Values
from foundation.settings.values import WrongValueError, from_text, from_value
from orchestrator.cluster_formats.llmservingsim import read_cluster_config
from orchestrator.cluster_formats.vllm_engine import MEMBERS, read_engine_config

ENGINES = "engines"
_FILES_OF_NUMBERS = {"remote_bw": "remote_memory"}
"""Settings of the cluster file that a user's own file says, too: the file wins."""


def joined(files: Mapping[str, Path], run_file: Layers, flags: Values, known: Catalogue) -> Layers:
    """Return the layers of a run whose engines are in `files`, by the names of their flags; see the module's text.

    A file that cannot be read is a `UserError`; what is wrong inside, and what they contradict, is in `problems`.
    """
    cluster = read_cluster_config(files["cluster_config"]) if "cluster_config" in files else Layers()
    engine = read_engine_config(files["engine_config"], known) if "engine_config" in files else Layers()
    problems = [*run_file.problems, *cluster.problems, *engine.problems]
    if ENGINES in run_file.lists and cluster.lists:
        what, fix = "the run file lists engines, too", "list them in one file"
        problems.append(UserError(what, field="--cluster_config", fix=fix))
    others = {**run_file.file, **flags}
    shared = {name: one for name, one in engine.file.items() if name != MEMBERS}
    entries = [_without_what_files_say(entry, others) for entry in cluster.lists.get(ENGINES, ())]
    entries = [_with_experts(entry, {**shared, **others}) for entry in entries] or [*run_file.lists.get(ENGINES, ())]
    problems += _members(engine.file.get(MEMBERS))
    problems += _contradictions(entries or [{}], shared, others, known)
    problems += _divided_experts(entries, shared)
    if "model_config" in files:
        problems += _other_models([*entries, shared])
        model = flags["model_config"]
        entries = [{**entry, "model_name": model} for entry in entries]
        shared = {**shared, "model_name": model}
    return Layers(
        file={**cluster.file, **run_file.file, **shared},
        lists={ENGINES: entries} if entries else {},
        flags={name: one for name, one in flags.items() if not ("model_config" in files and name == "model_name")},
        problems=problems,
        notes=cluster.notes,
    )


def _without_what_files_say(entry: Values, others: Values) -> Values:
    return {name: one for name, one in entry.items() if _FILES_OF_NUMBERS.get(name) not in others}


def _members(given: Given | None) -> Iterator[UserError]:
    """Refuse engines of several data-parallel members; see `llmservingsim.engines_of`."""
    if given is not None:
        what = f"{brief(given.value)}: members in lock step (data parallelism) are not simulated"
        yield given.problem(what, "write 1; --instances N makes engines that share nothing")


def _contradictions(entries: Sequence[Values], shared: Values, others: Values, known: Catalogue) -> Iterator[UserError]:
    """Yield what is said twice and differently, each name once."""
    told: set[str] = set()
    for entry in entries:
        pairs = [(one, entry[name], name) for name, one in shared.items() if name in entry]
        stated = {**shared, **entry}
        pairs += [(one, stated[name], name) for name, one in others.items() if name in stated]
        for one, other, name in pairs:
            if name not in told and not _same(one, other, name, known):
                told.add(name)
                what = f"{_said(one)} conflicts with {_said(other)} of {other.path}, {other.where}"
                yield one.problem(what, "leave one out, or make them the same")


def _divided_experts(entries: Sequence[Values], shared: Values) -> Iterator[UserError]:
    """Refuse experts that the engine's arguments divide and an instance spreads."""
    whole = shared.get("enable_expert_parallel")
    for entry in entries if whole is not None and whole.value is False else ():
        if "ep_size" in entry and entry["ep_size"].value != 1:
            spread = entry["ep_size"]
            what = f"false conflicts with {_said(spread)} of {spread.path}, {spread.where}"
            yield shared["enable_expert_parallel"].problem(what, "make them the same")
            return


def _with_experts(entry: Values, others: Values) -> Values:
    """Return an instance with what LLMServingSim takes where nobody says: whole experts on its NPUs."""
    if "enable_expert_parallel" in others or "ep_size" in others:
        return entry
    tensor, model = entry.get("tensor_parallel_size"), entry.get("model_name")
    if "ep_size" in entry or tensor is None or tensor.value == 1 or model is None or not _is_mixture(str(model.value)):
        return entry
    return {**entry, "ep_size": tensor}


def _is_mixture(model: str) -> bool:
    from trace_gen.models import load_model

    try:
        return bool(load_model(model).mixtures)
    except UserError:
        return False  # it is told when the engine is put together


def _other_models(entries: Sequence[Values]) -> Iterator[UserError]:
    """Refuse one model's file for engines of several."""
    named = [entry["model_name"] for entry in entries if "model_name" in entry]
    for one in named[1:]:
        if one.value != named[0].value:
            what = f"{_said(one)} and {_said(named[0])} cannot both be what --model_config describes"
            yield one.problem(what, "leave --model_config out")
            return


def _same(one: Given, other: Given, name: str, known: Catalogue) -> bool:
    same: bool = _value(one, name, known) == _value(other, name, known)
    return same


def _value(given: Given, name: str, known: Catalogue) -> Any:
    """Return a value in its setting's type; one that is wrong, as it is (the reading tells of it)."""
    declaration = known.entries[name].declaration
    if not isinstance(declaration, Setting):
        return given.value
    try:
        return (from_text if given.is_text else from_value)(declaration, given.value)
    except WrongValueError:
        return given.value


def _said(given: Given) -> str:
    return str(given.value) if isinstance(given.value, str) else brief(given.value)
