"""The .et files of all ranks appear together or not at all, and nothing planted beside them is followed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import largest_file

from converters.rank_files import RankFiles
from foundation.errors import UserError


def write(prefix: Path, content: bytes = b"node") -> None:
    with RankFiles(prefix, 3) as files:
        files.append([0, 2], content)
        files.append([2], b"more")


def test_ranks_appear_together(tmp_path: Path) -> None:
    with RankFiles(tmp_path / "made" / "llm", 2) as files:
        files.append([1], b"x")
        assert not any(path.exists() for path in files.paths)
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "made").iterdir()) == [
        ("llm.0.et", b""),
        ("llm.1.et", b"x"),
    ]
    plain = tmp_path / "plain"
    plain.touch()
    assert files.paths[0].stat().st_mode == plain.stat().st_mode


def test_after_a_failure_the_old_files_stay_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "llm", b"old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), RankFiles(tmp_path / "llm", 3) as files:
        files.append([0], b"new")
        raise RuntimeError
    with largest_file(2), pytest.raises(UserError, match="llm: cannot write: File too large"):
        write(tmp_path / "llm")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_links_are_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("llm.0.et", f".llm.0.et.{os.getpid()}.part"):
        (tmp_path / name).symlink_to(precious)
    write(tmp_path / "llm")
    assert precious.read_text() == "mine"
    assert (tmp_path / "llm.0.et").read_bytes() == b"node"


@pytest.mark.parametrize("prefix", ["/proc/llm", "file/llm", "a\0b", "taken"])
def test_places_that_cannot_be_written(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.1.et").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write(tmp_path / prefix)
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_converter_left_is_swept(tmp_path: Path) -> None:
    script = "import os, sys; from converters.rank_files import RankFiles\n"
    script += "with RankFiles(sys.argv[1], 2) as files: files.append([0], b'x'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "llm"], check=False)
    (left,) = tmp_path.iterdir()
    assert left.is_dir() and left.name.startswith(".llm.")
    with RankFiles(tmp_path / "other", 1):
        assert left.exists()
    with RankFiles(tmp_path / "llm", 1):
        assert not left.exists()


def test_an_interrupt_while_the_files_are_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RankFiles, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "llm")
    assert not list(tmp_path.iterdir())
