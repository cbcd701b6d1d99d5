"""Inputs that are no ordinary files (and may never end) are refused before anything is read from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from converters.chakra import read_graph, read_nodes
from converters.chakra.graph_reader import read_groups
from converters.text import open_text
from foundation.errors import UserError

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text": ("trace", open_text),
    "nodes": ("execution trace", lambda path: list(read_nodes(path))),
    "graph": ("execution trace", lambda path: read_graph(path.with_name("g"), num_ranks=1)),
    "groups": ("communicator group file", lambda path: read_groups(path, 4)),
}


@pytest.mark.parametrize(("what", "read"), READERS.values(), ids=list(READERS))
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_only_ordinary_files_are_read(kind: str, what: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "g.0.et"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"g\.0\.et: the {what} cannot be read: it is {kind}; name an ordinary file"):
        read(path)
