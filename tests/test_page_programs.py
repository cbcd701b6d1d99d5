"""Programs and names in the pages: they run, and they are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from converters.chakra import write_graph
from converters.lowering import lower
from orchestrator.backends import backends
from tests.converters.traces import transformer

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("groups", [False, True])
def test_chakra_from_python(groups: bool, tmp_path: Path) -> None:
    """The page's program runs, and what it calls `ranks` and `groups` are the files that were written."""
    text = (ROOT / "docs" / "chakra.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "out").mkdir()
    graph = lower(transformer(2, 2), network_dims=None if groups else [2, 2])
    write_graph(graph, tmp_path / "out" / "llm")
    program += "print('files', *[path.as_posix() for path in written.ranks], written.groups)\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    *nodes, files = ran.stdout.splitlines()
    assert len(nodes) == graph.rank_graphs[0].nodes
    names = files.removeprefix("files ").split()
    there = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "copy").iterdir())
    assert sorted(name for name in names if name != "None") == there
    assert (names[-1] == "None") is not groups


def test_every_backend_is_in_the_table_by_its_name() -> None:
    text = (ROOT / "docs" / "backends.md").read_text()
    table = re.search(r"^\| `--backend` .*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    assert set(re.findall(r"^\| `([a-z-]+)`", table[0], re.MULTILINE)) - {"--backend"} == set(backends)
