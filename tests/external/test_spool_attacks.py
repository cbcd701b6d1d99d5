"""A spool folder in which others plant what they like: answered with an error, links never followed, served on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stand_ins import ROOT, shell_script

from external.astra_sim.guarded_folder import GuardedFolder
from external.astra_sim.process import ProcessRunner, run_command
from external.astra_sim.runner import RunFailedError
from external.astra_sim.spool import Spool, SpoolRunner, read_output


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=["python", "shell"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spool]:
    """A folder that is served by a program that prints its arguments."""
    folder = tmp_path / "spool"
    binary = shell_script(tmp_path / "binary", 'for one in "$@"; do echo "<$one>"; done')
    python = [sys.executable, "-m", "external.astra_sim", "serve", "--spool_dir", folder, "--astra_sim", binary]
    shell = ["sh", ROOT / "external" / "astra_sim" / "serve.sh", "poll", folder, binary]
    folder.mkdir()
    command = python if request.param == "python" else shell
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: (folder / "servers").is_dir() and any((folder / "servers").glob("*[0-9]")))
    yield Spool(folder)
    assert server.poll() is None, "the server has not been ended by any request"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def prepare(spool: Spool, name: str) -> Path:
    folder = spool.requests / f".{name}"
    folder.mkdir()
    (folder / "arguments").write_text("a b\nc\n")
    return folder


def answer(spool: Spool, folder: Path) -> Path:
    """Publish a request and return its answer's folder."""
    name = folder.name.removeprefix(".")
    folder.rename(spool.requests / name)
    until((spool.answers / name).exists)
    return spool.answers / name


def test_a_plain_file_and_a_link_are_answered_with_an_error(spool: Spool, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "arguments").write_text("a\n")
    (spool.requests / ".file").touch()
    (spool.requests / ".link").symlink_to(precious)
    (spool.requests / ".dangling").symlink_to(tmp_path / "nowhere")
    for name in (".file", ".link", ".dangling"):
        output = read_output(answer(spool, spool.requests / name))
        assert (output.exit_code, output.stdout) == (125, "")
        assert "the request is not a folder that can be served" in output.stderr
    assert [path.name for path in precious.iterdir()] == ["arguments"]
    assert read_output(answer(spool, prepare(spool, "fine"))).stdout == "<a b>\n<c>\n"


@pytest.mark.parametrize("planted", ["absent", "a link", "a pipe", "a folder"])
def test_arguments_that_are_no_file_are_answered_with_an_error(spool: Spool, tmp_path: Path, planted: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not tell\n")
    folder = prepare(spool, "bad")
    (folder / "arguments").unlink()
    if planted == "a link":
        (folder / "arguments").symlink_to(secret)
    elif planted == "a pipe":
        os.mkfifo(folder / "arguments")
    elif planted == "a folder":
        (folder / "arguments").mkdir()
    output = read_output(answer(spool, folder))
    assert output.exit_code == 125 and "do not tell" not in output.stdout + output.stderr
    assert output.stderr
    assert read_output(answer(spool, prepare(spool, "fine"))).exit_code == 0


@pytest.mark.parametrize("content", [b"a\0b\n", b"\xff\xfe\n", b""])
def test_arguments_of_any_bytes_do_not_end_the_server(spool: Spool, content: bytes) -> None:
    folder = prepare(spool, "odd")
    (folder / "arguments").write_bytes(content)
    output = read_output(answer(spool, folder))
    assert output.exit_code in (0, 125)
    assert read_output(answer(spool, prepare(spool, "fine"))).stdout == "<a b>\n<c>\n"


def test_planted_links_are_replaced_not_written_through(spool: Spool, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = prepare(spool, "links")
    for name in ("server", "stdout", "stderr", "exit_code", "identity"):
        (folder / name).symlink_to(precious)
    output = read_output(answer(spool, folder))
    assert (output.exit_code, output.stdout) == (0, "<a b>\n<c>\n")
    assert precious.read_text() == "mine"


def test_planted_folders_and_pipes_are_replaced(spool: Spool) -> None:
    folder = prepare(spool, "others")
    (folder / "stdout" / "deep").mkdir(parents=True)
    os.mkfifo(folder / "stderr")
    os.mkfifo(folder / "server")
    assert read_output(answer(spool, folder)).stdout == "<a b>\n<c>\n"


def test_a_server_whose_sign_of_life_is_cleared_away_puts_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    command = [sys.executable, "-m", "external.astra_sim", "serve", "--spool_dir", str(folder), "--command", "true"]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    until(lambda: (folder / "servers").is_dir() and any((folder / "servers").glob("*[0-9]")))
    (sign,) = (folder / "servers").iterdir()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    sign.with_name(f"{sign.name}.new").symlink_to(precious)
    sign.unlink()
    until(sign.exists)
    assert sign.read_text() == "\ntrue\n" and precious.read_text() == "mine"
    server.terminate()
    assert server.wait(60) == 0


def complete(answer: Path) -> Path:
    answer.mkdir()
    for name, text in (("stdout", "out"), ("stderr", "err"), ("exit_code", "3\n"), ("identity", " sha256:1 \n")):
        (answer / name).write_text(text)
    return answer


def test_a_clients_side_of_an_answer(tmp_path: Path) -> None:
    output = read_output(complete(tmp_path / "answer"))
    assert (output.exit_code, output.stdout, output.stderr, output.identity) == (3, "out", "err", "sha256:1")
    (tmp_path / "answer" / "identity").write_text("\n")
    assert read_output(tmp_path / "answer").identity is None


@pytest.mark.parametrize("name", ["stdout", "stderr", "exit_code", "identity"])
@pytest.mark.parametrize("planted", ["absent", "a link", "a pipe", "a folder"])
def test_an_answer_that_is_not_whole_is_never_waited_for(tmp_path: Path, name: str, planted: str) -> None:
    folder = complete(tmp_path / "answer")
    content = (folder / name).read_text()
    (folder / name).unlink()
    if planted == "a link":
        (tmp_path / "elsewhere").write_text(content)
        (folder / name).symlink_to(tmp_path / "elsewhere")
    elif planted == "a pipe":
        os.mkfifo(folder / name)
    elif planted == "a folder":
        (folder / name).mkdir()
    with pytest.raises(RunFailedError, match=r"the server's answer is incomplete \(.*\): its disk may be full"):
        read_output(folder)


@pytest.mark.parametrize("text", ["", "zero", "１", "1_0", "9" * 5000])
def test_an_exit_code_that_is_none(tmp_path: Path, text: str) -> None:
    (complete(tmp_path / "answer") / "exit_code").write_text(text)
    with pytest.raises(RunFailedError, match="the server's answer is incomplete"):
        read_output(tmp_path / "answer")


def test_an_answer_that_is_a_link_is_not_read_and_not_followed_when_it_is_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    elsewhere = complete(tmp_path / "elsewhere")
    (spool.answers / "x").symlink_to(elsewhere)
    with pytest.raises(RunFailedError, match="incomplete"):
        read_output(spool.answers / "x")
    runner = SpoolRunner(spool.root, timeout_s=1)
    runner.discard(spool.requests / ".x")
    assert not (spool.answers / "x").is_symlink() and (elsewhere / "stdout").exists()


def test_a_folder_that_is_gone_already_is_discarded(tmp_path: Path) -> None:
    runner = ProcessRunner(["true"], identity=None, timeout_s=1, work_dir=str(tmp_path))
    folder = runner.new_folder("x")
    runner.discard(folder)
    runner.discard(folder)
    runner.close()
    assert not list(tmp_path.iterdir())


def test_two_may_make_a_spool_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is there when the second one makes it, but was not when it looked."""
    Spool(tmp_path / "spool")
    looked = {tmp_path / "spool"}
    is_dir = Path.is_dir

    def too_early(path: Path) -> bool:
        there = path in looked and is_dir(path)
        looked.add(path)
        return there

    monkeypatch.setattr(Path, "is_dir", too_early)
    Spool(tmp_path / "spool")
    assert len(looked) == 6


def test_a_request_that_cannot_be_withdrawn_is_where_it_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    complete(spool.requests / "x")
    (spool.failed / "x" / "in the way").mkdir(parents=True)
    assert spool.withdraw("x") == spool.requests / "x"
    assert (spool.requests / "x" / "stdout").exists()


def test_files_in_a_guarded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with GuardedFolder(tmp_path) as folder:
        tmp_path.rename(moved := tmp_path.with_name(f"{tmp_path.name}-moved"))
        folder.write("name", "text")
        folder.write("name", "other text")
        assert folder.read("name") == b"other text" == (moved / "name").read_bytes()
        assert Path(folder.working_folder).resolve() == moved
        monkeypatch.setattr("external.astra_sim.guarded_folder.MOST_BYTES", 10)
        assert folder.read("name") == b"other text"
        folder.write("name", "other texts")
        with pytest.raises(OSError, match="name is larger than 10 bytes"):
            folder.read("name")
    for path in (moved / "name", moved / "absent"):
        with pytest.raises(OSError):
            GuardedFolder(path)


def test_a_program_that_prints_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("external.astra_sim.process.MOST_OUTPUT_BYTES", 1_000_000)
    for stream in ("", " >&2"):
        with pytest.raises(RunFailedError, match="it printed more than 1000000 bytes and was ended"):
            run_command(["sh", "-c", f"cat /dev/zero{stream}"], tmp_path, 60, None)
    exact = run_command(["sh", "-c", "head -c 1000000 /dev/zero; head -c 10 /dev/zero >&2"], tmp_path, 60, "me")
    assert (len(exact.stdout), len(exact.stderr), exact.exit_code, exact.identity) == (1_000_000, 10, 0, "me")


def test_what_a_program_leaves_running_does_not_hold_its_answer_up(tmp_path: Path) -> None:
    output = run_command(["sh", "-c", "echo done; sleep 1000 &"], tmp_path, 60, None)
    assert output.stdout == "done\n"


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    for command in (["a\0b"], [str(tmp_path)], [str(tmp_path / "absent")]):
        with pytest.raises(RunFailedError, match=r"it cannot be started: .* \("):
            run_command(command, tmp_path, 60, None)
