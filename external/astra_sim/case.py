"""One run's folder of inputs: graph, configuration files, arguments; and the key under which its answer is cached."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from converters.chakra.graph_writer import GraphWriter, groups_json
from converters.execution_graph import RankGraph
from external.astra_sim.adapt import Adapted, Configuration

PREFIX = "graph"
GROUPS = "comm_groups.json"
FORMAT = b"orrery astra-sim answer 1"
"""Part of every cache key: to be changed whenever the adaptation of graphs or the stored form changes."""

# Upstream writes a debug line into log/ for every compute node, which is most of its time on long chains.
_LOGGING = """[[sink]]
name = "none"
type = "null_sink_mt"

[[logger]]
name = "workload"
sinks = ["none"]
level = "info"
"""
_NAMES = frozenset({"ranks", "names", "name", "annotations"})
"""Fields of a `RankGraph` that no backend reads as work; ranks are hashed apart. Any other field decides the answer."""
_WORK = ("num_ops", "tensor_size")
"""What `RankGraph.work` is hashed as, so that it does not matter which nodes share columns of it."""
_COLUMNS = tuple(
    name
    for field in fields(RankGraph)
    if field.name not in _NAMES
    for name in (_WORK if field.name == "work" else (field.name,))
)


def write_case(
    folder: Path, adapted: Adapted, configuration: Configuration, flags: Mapping[str, str], writer: GraphWriter
) -> list[str]:
    """Write everything one run needs into `folder` and return the binary's arguments, their paths relative to it.

    Files are as open as the folder: upstream opens graphs for appending (et_feeder.h) and fails where it may only read.
    Relative paths also keep the group file's argument free of the word that upstream takes for "none". Raises
    `OSError` when the disk is full or the folder is gone.
    """
    for rank_graph in adapted.graph.rank_graphs:
        for rank, content in writer.encode(rank_graph):
            (folder / f"{PREFIX}.{rank}.et").write_bytes(content)
    files = {"network.yml": configuration.network, "system.json": configuration.system}
    files |= {"memory.json": configuration.memory, "logging.toml": _LOGGING}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    arguments = {
        "workload-configuration": PREFIX,
        "system-configuration": "system.json",
        "remote-memory-configuration": "memory.json",
        "network-configuration": "network.yml",
        "logging-configuration": "logging.toml",
        **flags,
    }
    if adapted.graph.groups:
        (folder / GROUPS).write_text(groups_json(adapted.graph.groups), encoding="utf-8")
        arguments["comm-group-configuration"] = GROUPS
    mode = folder.stat().st_mode & 0o666
    if mode & 0o022:
        for path in folder.iterdir():
            path.chmod(mode)
    return [f"--{name}={value}" for name, value in arguments.items()]


def case_key(adapted: Adapted, configuration: Configuration, flags: Mapping[str, str], identity: str) -> bytes:
    """Return the SHA-256 of what decides the answer: graph (names apart), configuration, flags, and what runs it."""
    digest = hashlib.sha256(FORMAT)
    for rank_graph in adapted.graph.rank_graphs:
        _add(digest, repr(rank_graph.ranks).encode())
        _add_columns(digest, rank_graph)
    texts: Sequence[str] = (
        repr(sorted(adapted.graph.groups.items())),
        configuration.network,
        configuration.system,
        configuration.memory,
        repr(sorted(flags.items())),
        identity,
    )
    for text in texts:
        _add(digest, text.encode())
    return digest.digest()


def _add_columns(digest: hashlib._Hash, graph: RankGraph) -> None:
    for name in _COLUMNS:
        column = np.ascontiguousarray(getattr(graph, name))
        _add(digest, column.tobytes())


def _add(digest: hashlib._Hash, content: bytes) -> None:
    """Add `content` with its length before it, so that no two lists of contents look alike."""
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)
