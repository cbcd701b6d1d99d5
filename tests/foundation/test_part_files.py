"""Results written as they come: named when whole, kept and named after a failure, never through links."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import largest_file

from foundation.errors import UserError
from foundation.part_files import PartFile


def test_a_whole_result_gets_its_name(tmp_path: Path) -> None:
    target = tmp_path / "made" / "out.csv"
    with PartFile(target) as part:
        csv.writer(part).writerow(["a", "b"])
        part.flush()
        assert part.part.read_bytes() == b"a,b\r\n" and not target.exists()
        part.write("ü\n")
    assert target.read_bytes() == "a,b\r\nü\n".encode()
    assert list(target.parent.iterdir()) == [target]
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode


def test_bytes_and_an_earlier_result(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    part = PartFile(target, "wb")
    assert part.write(b"new") == 3
    assert target.read_bytes() == b"old"
    assert part.commit() == target
    part.close()
    assert target.read_bytes() == b"new"


def test_after_a_failure_the_part_stays_and_the_next_run_replaces_it(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt), PartFile(target) as part:
        part.write("half")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv.part", "half")]
    with PartFile(target) as part:
        part.write("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "whole")]


def test_a_failure_before_anything_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), PartFile(tmp_path / "out.csv"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_what_was_written_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    kept = r"out\.csv: cannot write: .* \(what was written is kept in .*out\.csv\.part\)"
    with PartFile(target) as part:
        part.write("row\n")
        part.flush()
        with largest_file(4):
            part.write("another\n")
            with pytest.raises(UserError, match=kept):
                part.flush()
        for action in (part.flush, lambda: part.write("x"), part.commit):
            with pytest.raises(UserError, match=kept):
                action()
    assert not target.exists()
    assert (tmp_path / "out.csv.part").read_text().startswith("row\n")


def test_a_full_disk_is_told_by_a_write_that_is_larger_than_the_buffer(tmp_path: Path) -> None:
    kept = r"out\.bin: cannot write: .* \(what was written is kept in .*out\.bin\.part\)"
    with PartFile(tmp_path / "out.bin", "wb") as part, largest_file(4):
        for content in (b"x" * 1_000_000, b"x"):
            with pytest.raises(UserError, match=kept):
                part.write(content)


def test_a_full_disk_at_the_very_end(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with largest_file(2), pytest.raises(UserError, match="cannot write"), PartFile(target) as part:
        part.write("too much")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv.part"]


def test_a_name_that_is_taken_meanwhile_is_told_and_what_was_written_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    part = PartFile(target)
    part.write("row")
    target.mkdir()
    with pytest.raises(
        UserError, match=r"out\.csv: cannot write: Is a directory \(what was written is kept in .*part\)"
    ):
        part.commit()
    assert (tmp_path / "out.csv.part").read_text() == "row"


def test_resuming_goes_on_after_what_is_known_to_be_good(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    (tmp_path / "out.csv.part").write_text("good\nhalf a li")
    with PartFile(target, resume_at=5) as part:
        part.write("next\n")
    assert target.read_text() == "good\nnext\n"
    (tmp_path / "out.csv.part").write_text("good")
    with pytest.raises(UserError, match="fewer than 5 bytes are there; start anew"):
        PartFile(target, resume_at=5)
    with pytest.raises(UserError, match="No such file"):
        PartFile(tmp_path / "other.csv", resume_at=0)


def test_links_are_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    part = tmp_path / "out.csv.part"
    part.symlink_to(precious)
    with pytest.raises(UserError, match="cannot write"):
        PartFile(tmp_path / "out.csv", resume_at=0)
    with PartFile(tmp_path / "out.csv") as mine:
        mine.write("x")
    assert precious.read_text() == "mine"
    assert (tmp_path / "out.csv").read_text() == "x"
    part.symlink_to(tmp_path / "nowhere")
    with PartFile(tmp_path / "out.csv") as again:
        again.write("y")
    assert (tmp_path / "out.csv").read_text() == "y"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["out.csv", "precious"]


def test_two_programs_do_not_write_one_result(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with PartFile(target) as part:
        part.write("first")
        for resume_at in (None, 0):
            with pytest.raises(UserError, match=r"out\.csv\.part: another program is writing this result"):
                PartFile(target, resume_at=resume_at)
    assert target.read_text() == "first"


def test_a_killed_programs_part_is_free(tmp_path: Path) -> None:
    script = "import os, sys; from foundation.part_files import PartFile; part = PartFile(sys.argv[1]); "
    script += "part.write('x'); part.flush(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "out.csv"], check=False)
    assert (tmp_path / "out.csv.part").read_text() == "x"
    with PartFile(tmp_path / "out.csv"):
        pass
    assert (tmp_path / "out.csv").read_text() == ""


@pytest.mark.parametrize("name", ["/proc/x.csv", "/dev/null", "folder", "file/out.csv", "x" * 255, "a\0b"])
def test_places_that_cannot_be_written_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        PartFile(tmp_path / name)
    (tmp_path / "out.csv.part").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        PartFile(tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "out.csv.part"]
