"""How long a client waits, and for what: told on a clock that the test moves, so that no machine is too slow for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from external.astra_sim.runner import Output, RunFailedError
from external.astra_sim.spool import Pulse, Spool, SpoolRunner

SILENCE_S, TIMEOUT_S = 10.0, 60.0


class Story:
    """A clock on which things happen: `at` a second of it, an action is done while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._start = self.now
        self._waiting: list[tuple[float, Callable[[], object]]] = []

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        self._waiting.append((self._start + seconds, action))
        self._waiting.sort(key=lambda entry: entry[0])

    @property
    def elapsed(self) -> float:
        return self.now - self._start

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        assert self.elapsed < 500, "nobody ends this"
        while self._waiting and self._waiting[0][0] <= self.now:
            self._waiting.pop(0)[1]()


class Scene:
    """A client with one request under way, and a server's hands."""

    def __init__(self, folder: Path) -> None:
        self.story, self.spool = Story(), Spool(folder)
        self.client = SpoolRunner(folder, timeout_s=TIMEOUT_S, silence_s=SILENCE_S, clock=self.story)
        self.request = self.client.new_folder("one")
        self.name = self.request.name.removeprefix(".")
        self._beats = 0

    def run(self) -> Output:
        return self.client.run(self.request, ["--flag", "two words"])

    def beat(self, server: str = "host-1", identity: str = "sha256:1") -> None:
        """Write a server's sign of life, later than any before."""
        self._beats += 1
        path = self.spool.servers / server
        path.write_text(f"{identity}\ncommand\n")
        future = path.stat().st_mtime + 100 + self._beats
        os.utime(path, (future, future))

    def beats(self, first: float, last: float, server: str = "host-1") -> None:
        """Let a server live from second `first` to `last`."""
        for second in range(int(first), int(last) + 1):
            self.story.at(second, lambda: self.beat(server))

    def claim(self, server: str = "host-1") -> None:
        (self.spool.requests / self.name).rename(self.spool.running / self.name)
        (self.spool.running / self.name / "server").write_text(f"{server}\n")

    def answer(self) -> None:
        folder = self.spool.running / self.name
        for name, text in (("stdout", "fine"), ("stderr", ""), ("exit_code", "0\n"), ("identity", "sha256:1\n")):
            (folder / name).write_text(text)
        folder.rename(self.spool.answers / self.name)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "spool")


FINE = Output(0, "fine", "", "sha256:1")


def test_a_server_that_comes_within_the_silence_is_waited_for(scene: Scene) -> None:
    scene.beats(9, 40)
    scene.story.at(20, scene.claim)
    scene.story.at(30, scene.answer)
    assert scene.run() == FINE
    assert scene.story.elapsed == pytest.approx(30, abs=0.1)
    assert (scene.spool.answers / scene.name / "arguments").read_text() == "--flag\ntwo words\n"


def test_nobody_is_waited_for_as_long_as_the_silence_and_not_much_longer(scene: Scene) -> None:
    with pytest.raises(RunFailedError, match=r"nobody serves .*: no sign of a server for 10 s; start one with `python"):
        scene.run()
    assert scene.story.elapsed == pytest.approx(SILENCE_S, abs=0.3)


def test_a_server_that_falls_silent_is_given_up(scene: Scene) -> None:
    scene.beats(1, 30)
    with pytest.raises(RunFailedError, match="nobody serves"):
        scene.run()
    assert scene.story.elapsed == pytest.approx(30 + SILENCE_S, abs=0.3)


def test_a_queue_is_waited_for_however_long_and_a_run_counts_from_its_claim(scene: Scene) -> None:
    scene.beats(0, 400)
    scene.story.at(300, scene.claim)
    scene.story.at(300 + TIMEOUT_S - 1, scene.answer)
    assert scene.run() == FINE


def test_a_run_that_takes_longer_than_it_may_has_hung(scene: Scene) -> None:
    scene.beats(0, 400)
    scene.story.at(100, scene.claim)
    with pytest.raises(RunFailedError, match=r"it hung: no answer 60 s after it began \(--backend_timeout sets"):
        scene.run()
    assert scene.story.elapsed == pytest.approx(100 + TIMEOUT_S, abs=0.3)


def test_the_server_that_took_the_run_must_live_not_just_any(scene: Scene) -> None:
    scene.beats(0, 400, "host-2")
    scene.beats(0, 20, "host-1")
    scene.story.at(15, scene.claim)
    with pytest.raises(RunFailedError, match=r"the server host-1 took the run and then stopped: killed in mid-run\?"):
        scene.run()
    assert scene.story.elapsed == pytest.approx(20 + SILENCE_S, abs=0.3)


def test_a_server_is_not_missed_before_it_could_be_seen(scene: Scene) -> None:
    """A run claimed by a server whose sign of life has not been looked at for long enough."""
    scene.beats(0, 400, "host-2")
    scene.story.at(1, scene.claim)
    scene.story.at(9, scene.answer)
    assert scene.run() == FINE


def test_the_identity_is_what_all_living_servers_agree_on(scene: Scene) -> None:
    scene.story.at(5, lambda: (scene.beat("host-1"), scene.beat("host-2")))
    assert scene.client.identity() == "sha256:1"
    assert scene.story.elapsed == pytest.approx(5, abs=0.2)
    scene.beat("host-3", identity="sha256:2")
    scene.story.sleep(0.2)
    assert scene.client.identity() is None


def test_without_a_server_there_is_no_identity(scene: Scene) -> None:
    assert scene.client.identity() is None
    assert scene.story.elapsed == pytest.approx(SILENCE_S, abs=0.2)


@pytest.mark.parametrize("content", ["", "\ncommand\n", "\udcff"])
def test_a_server_that_says_nothing_of_itself_has_no_identity(scene: Scene, content: str) -> None:
    scene.beat()
    (scene.spool.servers / "host-1").write_text(content, errors="surrogateescape")
    scene.story.sleep(1)
    assert scene.client.identity() is None


def test_signs_of_life_are_changes_seen_or_very_recent(tmp_path: Path) -> None:
    story = Story()
    for name, age in (("old", 60.0), ("recent", 1.0)):
        path = tmp_path / name
        path.touch()
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    for name in (".hidden", "half.new"):
        (tmp_path / name).touch()
    pulse = Pulse(tmp_path, story)
    assert pulse.alive(SILENCE_S) == ["recent"]
    story.sleep(SILENCE_S - 0.01)
    assert pulse.alive(SILENCE_S) == ["recent"]
    story.sleep(0.02)
    assert pulse.alive(SILENCE_S) == []
    os.utime(tmp_path / "old", (1, 1))
    assert pulse.alive(SILENCE_S) == [], "the folder is looked at ten times a second at most"
    story.sleep(0.2)
    assert pulse.alive(SILENCE_S) == ["old"]
    assert pulse.watched_s() == pytest.approx(SILENCE_S + 0.21)
