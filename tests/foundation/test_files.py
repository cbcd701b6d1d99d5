"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from foundation.errors import UserError
from foundation.files import atomic_write, read_text


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
