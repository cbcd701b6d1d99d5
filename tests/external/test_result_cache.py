"""The result cache saves runs, is shared, and never costs a result: damage, a full disk and no permission included."""

import os
import sqlite3
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_graphs import configuration, network, tensor_parallel
from stand_ins import ROOT, good, runs

from external.astra_sim import factories
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.process import ProcessRunner
from external.result_cache import FILE_NAME, ResultCache


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that counts its runs and, unlike other scripts, is taken to be known by its content."""
    monkeypatch.setattr("external.astra_sim.process.file_identity", lambda path: f"sha256:{path.name}")
    return good(tmp_path / "binary")


def backend(binary: Path, tmp_path: Path, **changes: object) -> AstraSimBackend:
    options = {"astra_sim": str(binary), "work_dir": str(tmp_path / "work"), "cache_dir": str(tmp_path / "cache")}
    files = {name: str(value) for name, value in changes.items() if name in ("network", "system", "memory")}
    more = {name: str(value) for name, value in changes.items() if name not in files}
    return factories.create_process(**{**configuration(), **files}, options=options | more)


def test_a_second_run_asks_the_cache_only(counted: Path, tmp_path: Path) -> None:
    answers = []
    for _ in range(2):
        used = backend(counted, tmp_path)
        answers.append(used.simulate(tensor_parallel(steps=4)).finish_ns.tolist())
        statistics = used.statistics()
        used.close()
    assert answers[0] == answers[1]
    assert runs(counted) == 4
    assert statistics == {"steps": 4, "cache_hits": 4, "runs": 0}


def test_steps_hit_whatever_graph_they_are_part_of(counted: Path, tmp_path: Path) -> None:
    used = backend(counted, tmp_path)
    used.simulate(tensor_parallel(steps=3))
    used.simulate(tensor_parallel(ns=1000))  # step 0 of the graph above
    assert used.statistics() == {"steps": 4, "cache_hits": 1, "runs": 3}
    used.close()


@pytest.mark.parametrize(
    "change",
    [
        {"network": network(2, latency=501)},
        {"system": configuration(endpoint_delay=11)["system"]},
        {"memory": configuration()["memory"].replace("100", "101")},
        {"num_queues_per_dim": "2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_the_answer_is_in_the_key(counted: Path, tmp_path: Path, change: dict[str, str]) -> None:
    for changes in ({}, change):
        used = backend(counted, tmp_path, **changes)
        used.simulate(tensor_parallel())
        used.close()
    assert runs(counted) == 2


def test_what_something_else_answered_is_not_kept(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server took the request than the one that was asked who it is."""
    run = ProcessRunner.run
    monkeypatch.setattr(ProcessRunner, "run", lambda *asked: replace(run(*asked), identity="sha256:other"))
    for _ in range(2):
        used = backend(counted, tmp_path)
        used.simulate(tensor_parallel())
        used.close()
    assert runs(counted) == 2


def test_another_binary_and_another_graph_miss(counted: Path, tmp_path: Path) -> None:
    other = good(tmp_path / "other")
    for binary in (counted, other):
        used = backend(binary, tmp_path)
        used.simulate(tensor_parallel())
        used.simulate(tensor_parallel(ns=1001))
        used.close()
    assert (runs(counted), runs(other)) == (2, 2)


def test_no_cache_reads_and_writes_none(counted: Path, tmp_path: Path) -> None:
    for _ in range(2):
        used = backend(counted, tmp_path, no_cache="1")
        used.simulate(tensor_parallel())
        used.close()
    assert runs(counted) == 2
    assert not (tmp_path / "cache").exists()


def test_a_script_is_not_cached(tmp_path: Path) -> None:
    """Its content does not say what it runs."""
    script = good(tmp_path / "script")
    for _ in range(2):
        used = backend(script, tmp_path)
        used.simulate(tensor_parallel())
        used.close()
    assert runs(script) == 2


def test_failures_are_not_cached(counted: Path, tmp_path: Path) -> None:
    text = counted.read_text()
    counted.write_text("#!/bin/sh\nexit 1\n")
    used = backend(counted, tmp_path)
    with pytest.raises(Exception, match=r"exit code 1"):
        used.simulate(tensor_parallel())
    counted.write_text(text)
    assert used.simulate(tensor_parallel()).by_rank()[0] == (1000, 0)
    used.close()


DAMAGE = [b"no database at all, but long enough" * 100, b"SQLite format 3\0" + b"\xff" * 9000]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_set_aside(damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE_NAME).write_bytes(damage)
    cache = ResultCache(tmp_path)
    assert cache.get(b"key") is None
    cache.put(b"key", b"value")
    assert cache.get(b"key") == b"value"
    cache.close()
    assert (tmp_path / f"{FILE_NAME}.damaged-0").read_bytes() == damage
    assert capsys.readouterr().err.count("is damaged") == 1


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_what_belongs_to_a_damaged_file_goes_with_it(suffix: str, tmp_path: Path) -> None:
    """The log of a file that was set aside is not taken for that of the new one."""
    (tmp_path / FILE_NAME).write_bytes(DAMAGE[0])
    (tmp_path / f"{FILE_NAME}{suffix}").write_bytes(b"left behind")
    cache = ResultCache(tmp_path)
    assert cache.get(b"key") is None
    assert not (tmp_path / f"{FILE_NAME}{suffix}").exists()
    cache.close()


def test_damage_that_sqlite_quotes_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its message is then no UTF-8, which Python's sqlite3 reports in a way of its own."""
    cache = ResultCache(tmp_path)
    cache.put(b"key", b"value")
    cache.close()
    content = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(
        content.replace(b"CREATE TABLE", b"CREATE \xff\xff\xff\xff\xff").replace(
            b"tableresults", b"table\xff\xff\xff\xff\xff\xff\xff"
        )
    )
    cache = ResultCache(tmp_path)
    assert cache.get(b"key") is None
    cache.put(b"key", b"value")
    assert cache.get(b"key") == b"value"
    cache.close()
    assert capsys.readouterr().err.count("is damaged") == 1


def test_an_answer_that_rotted_is_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ResultCache(tmp_path)
    cache.put(b"key", b"the right answer")
    cache.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE results SET value = substr(value, 1, 8) || CAST('the wrong answer' AS BLOB)")
    connection.close()
    cache = ResultCache(tmp_path)
    assert cache.get(b"key") is None
    assert "does not match its checksum" in capsys.readouterr().err
    cache.put(b"key", b"the right answer")
    assert cache.get(b"key") == b"the right answer"
    cache.close()


@pytest.mark.parametrize("value", ["7", "1.5", "NULL", "'text'", "X''", "randomblob(7)"])
def test_values_of_any_type_are_not_believed(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("CREATE TABLE results (key BLOB PRIMARY KEY, value) WITHOUT ROWID")
        connection.execute(f"INSERT INTO results VALUES (CAST('key' AS BLOB), {value})")
    connection.close()
    cache = ResultCache(tmp_path)
    assert cache.get(b"key") is None
    assert "does not match its checksum" in capsys.readouterr().err
    cache.put(b"key", b"the right answer")
    assert cache.get(b"key") == b"the right answer"
    cache.close()


@pytest.mark.parametrize("forged", [(0, 0, 0, 0), (-5, 7, 0, 0), (7, -(2**63), 0, 0), (7, 2**62 + 1, 0, 0), (5,), ()])
def test_a_forged_answer_is_worked_out_anew(forged: tuple[int, ...], counted: Path, tmp_path: Path) -> None:
    """Entries that no run can have left, with the right checksum: the binary runs, and its answer replaces them."""
    first = backend(counted, tmp_path)
    expected = first.simulate(tensor_parallel()).by_rank()
    first.close()
    [path] = tmp_path.rglob(FILE_NAME)
    with sqlite3.connect(path) as connection:
        [(key,)] = connection.execute("SELECT key FROM results").fetchall()
    connection.close()
    cache = ResultCache(path.parent)
    cache.put(key, struct.pack(f"<{len(forged)}q", *forged))
    cache.close()
    for _ in range(2):
        again = backend(counted, tmp_path)
        assert again.simulate(tensor_parallel()).by_rank() == expected
        again.close()
    assert runs(counted) == 2


def test_a_folder_that_cannot_be_made_is_worked_around(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    cache = ResultCache(tmp_path / "file" / "cache")
    for _ in range(3):
        assert cache.get(b"key") is None
        cache.put(b"key", b"value")
    cache.close()
    assert capsys.readouterr().err.count("warning: the result cache") == 1


def test_a_full_disk_is_worked_around(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=False).returncode
    ):
        pytest.skip("only root can mount a file system of 256 KiB")
    try:
        cache = ResultCache(small)
        for number in range(2000):
            cache.put(number.to_bytes(32, "big"), bytes(1000))
            cache.get(number.to_bytes(32, "big"))
        cache.close()
        assert capsys.readouterr().err.count("going on without it") == 1
    finally:
        subprocess.run(["umount", small], check=True)


def test_several_processes_share_it(tmp_path: Path) -> None:
    code = """
import sys
from external.result_cache import ResultCache
cache = ResultCache(sys.argv[1])
for number in range(300):
    key = f"key {number}".encode()
    found = cache.get(key)
    assert found in (None, key * 3), found
    cache.put(key, key * 3)
cache.close()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, said
    assert [text for pair in said for text in pair] == [""] * 8
    cache = ResultCache(tmp_path)
    assert all(cache.get(f"key {number}".encode()) == f"key {number}".encode() * 3 for number in range(300))
    assert (cache.hits, cache.misses) == (300, 0)
    cache.close()


def test_damaged_files_are_set_aside_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        (tmp_path / FILE_NAME).write_bytes(DAMAGE[0] + bytes([number]))
        cache = ResultCache(tmp_path)
        assert cache.get(b"key") is None
        cache.put(b"key", b"value")
        assert cache.get(b"key") == b"value"
        cache.close()
    for number in range(3):
        assert (tmp_path / f"{FILE_NAME}.damaged-{number}").read_bytes() == DAMAGE[0] + bytes([number])
    assert f"set aside as {FILE_NAME}.damaged-2, a new one begins" in capsys.readouterr().err


def test_a_closed_cache_holds_no_file(tmp_path: Path) -> None:
    def held() -> list[Path]:
        open_files = [one.resolve() for one in Path("/proc/self/fd").iterdir()]
        return [path for path in open_files if path.is_relative_to(tmp_path)]

    cache = ResultCache(tmp_path)
    cache.put(b"key", b"value")
    assert held()
    cache.close()
    assert not held()
