"""Files are written whole or not at all."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from full_disk import largest_file

from foundation import temporaries
from foundation.errors import UserError
from foundation.files import atomic_write, cannot_write, open_input, read_bytes, read_text


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target) as stream:
        stream.write("new, half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folders_are_made_and_the_mode_follows_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out.csv"
    with atomic_write(target) as stream:
        stream.write("x\n")
    assert target.read_bytes() == b"x\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="name a folder that can be written"), atomic_write(tmp_path / "file" / "out"):
        pass


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tsv: the dataset does not exist"):
        read_text(tmp_path / "none.tsv", "dataset")


@pytest.mark.parametrize("target", ["/dev/null", "."])
def test_what_is_not_an_ordinary_file_is_not_replaced(target: str) -> None:
    with pytest.raises(UserError, match="not an ordinary file"), atomic_write(target):
        pass


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_full_disk_is_a_user_error_and_leaves_the_old_file(tmp_path: Path, size: int) -> None:
    """At a write, and at the end, where the rest of the buffer goes."""
    target = tmp_path / "out.csv"
    target.write_text("old")
    with largest_file(2), pytest.raises(UserError, match=r"out\.csv: cannot write: File too large"):  # noqa: SIM117
        with atomic_write(target) as stream:
            stream.write("new" + "x" * size)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "old")]


def test_a_full_disk_is_told_with_its_remedy(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert str(cannot_write(error, tmp_path)).endswith(
        "cannot write: No space left on device; free space, or name another place"
    )


def test_errors_that_are_not_the_files_own_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "out.csv"):
        (tmp_path / "absent").read_text()
    with pytest.raises(ValueError, match="of the caller"), atomic_write(tmp_path / "out.csv"):
        raise ValueError("of the caller")


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    target = tmp_path / "out.csv"
    target.symlink_to(precious)
    with atomic_write(target) as stream:
        stream.write("x")
    assert (precious.read_text(), target.read_text(), target.is_symlink()) == ("mine", "x", False)


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\udcff" * 300])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot write"), atomic_write(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_long_name_that_a_file_can_have(tmp_path: Path) -> None:
    with atomic_write(tmp_path / ("ü" * 127)) as stream:
        stream.write("x")
    assert [path.name for path in tmp_path.iterdir()] == ["ü" * 127]


def killed_while_writing(target: Path) -> None:
    script = "import os, sys; from foundation.files import atomic_write\n"
    script += "with atomic_write(sys.argv[1]) as out: out.write('x'); out.flush(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, target], check=False)


def test_what_a_killed_program_left_is_swept_by_the_next_one(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "out.csv")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.csv.") and left.name.endswith(".orrery")
    with atomic_write(tmp_path / "other.csv"):
        assert left.exists()
    with atomic_write(tmp_path / "out.csv"):
        assert not left.exists()


def test_only_what_is_ours_and_abandoned_is_swept(tmp_path: Path) -> None:
    target, mark = tmp_path / "out.csv", "0123456789abcdef"
    precious = tmp_path / "precious"
    precious.write_text("mine")
    kept = [
        tmp_path / name for name in (".out.csv.part", f".out.csv.{mark}", f"out.csv.{mark}.orrery", ".out.csv.x.orrery")
    ]
    for path in kept:
        path.touch()
    link = tmp_path / f".out.csv.{mark}.orrery"
    link.symlink_to(precious)
    os.mkfifo(tmp_path / f".out.csv.{mark[::-1]}.orrery")
    with atomic_write(target), atomic_write(target):  # the inner one leaves the outer one's temporary alone
        pass
    assert all(path.exists() for path in kept) and link.is_symlink() and precious.read_text() == "mine"
    assert (tmp_path / f".out.csv.{mark[::-1]}.orrery").exists()


def test_another_users_temporary_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_while_writing(tmp_path / "out.csv")
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    with atomic_write(tmp_path / "out.csv"):
        assert left.exists()


def test_without_locks_nothing_is_swept_and_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_while_writing(tmp_path / "out.csv")
    (left,) = tmp_path.iterdir()

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with atomic_write(tmp_path / "out.csv") as stream:
        stream.write("x")
    assert left.exists() and (tmp_path / "out.csv").read_text() == "x"


def test_text_is_read_with_plain_line_ends_and_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path, "table") == "a\nb\nc\n"
    assert read_bytes(path, "table", 10) == path.read_bytes()
    with pytest.raises(UserError, match="the table is larger than 9 bytes"):
        read_bytes(path, "table", 9)


def test_an_input_that_changes_into_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and opening."""
    pipe, plain = tmp_path / "pipe", tmp_path / "plain"
    os.mkfifo(pipe)
    plain.touch()
    looked = plain.stat()
    monkeypatch.setattr(Path, "stat", lambda self: looked)
    with pytest.raises(UserError, match="the table cannot be read: it is a pipe"):
        open_input(pipe, "table")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no ordinary file here whose first byte cannot be read")
def test_an_input_that_breaks_off_is_told() -> None:
    with pytest.raises(UserError, match=r"^/proc/self/mem: the table cannot be read: Input/output error$"):
        read_bytes("/proc/self/mem", "table", 10)


def test_results_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    script = "import sys; from foundation.files import atomic_write\n"
    script += "with atomic_write(sys.argv[1]) as out: out.write('\\u00fc')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-X", "utf8=0", "-c", script, tmp_path / "out"], check=True, env=environment)
    assert (tmp_path / "out").read_bytes() == "\u00fc".encode()


@pytest.mark.parametrize("make", [temporaries.make_file, temporaries.make_folder])
def test_names_that_are_taken_are_passed_over(
    make: Callable[[Path], tuple[int, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["0" * 16, "1" * 16, "2" * 16])
    monkeypatch.setattr(os, "urandom", lambda size: bytes.fromhex(next(names)))
    (tmp_path / f".out.{'0' * 16}.orrery").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f".out.{'1' * 16}.orrery").touch()
    descriptor, path = make(tmp_path / "out")
    os.close(descriptor)
    assert path.name == f".out.{'2' * 16}.orrery" and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("make", [temporaries.make_file, temporaries.make_folder])
def test_a_temporary_that_was_swept_before_it_was_locked_is_made_anew(
    make: Callable[[Path], tuple[int, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's sweep may come between making and locking: once it still holds the lock, once it is done."""
    locks = iter([BlockingIOError, None, None])
    made: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        made[:] = list(tmp_path.iterdir())
        if (error := next(locks)) is not None:
            raise error
        if len(made) == 2:
            for path in made:
                path.rmdir() if path.is_dir() else path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptor, path = make(tmp_path / "out")
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == [path]


def test_no_name_at_all_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".out.{'0' * 16}.orrery").symlink_to(tmp_path / "elsewhere")
    for make in (temporaries.make_file, temporaries.make_folder):
        with pytest.raises(FileExistsError, match="no free name for a temporary beside"):
            make(tmp_path / "out")
