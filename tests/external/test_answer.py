"""What is made of a binary's output."""

import re

import pytest

from external.astra_sim.answer import read_cycles
from external.astra_sim.runner import Output, RunFailedError

LINE = "[2026-11-20 21:42:03.263] [workload] [info] sys[{}] finished, {} cycles, exposed communication {} cycles.\n"


def test_lines_come_in_finish_order_among_others() -> None:
    text = LINE.format(1, 50, 5) + "[t] [statistics] [info] sys[1], Wall time: 50\n" + LINE.format(0, 70, 70)
    assert read_cycles(Output(0, text, "", None), 2) == {0: (70, 70), 1: (50, 5)}


def test_the_idle_rank_beyond_ours_is_not_part_of_the_answer() -> None:
    assert read_cycles(Output(0, LINE.format(1, 1, 0) + LINE.format(0, 9, 0), "", None), 1) == {0: (9, 0)}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Output(0, LINE.format(0, 1, 1), "", None), "exited 0, but rank 1 printed no finished line"),
        (Output(0, "", "", None), "ranks 0, 1 printed no finished line (waiting for ever), and it said nothing"),
        (Output(-6, "", "x: Assertion `event_time > current_time' failed.", None), "signal SIGABRT: an event fell on"),
        (Output(134, "", "", None), "exit code 134 (SIGABRT)"),
        (Output(255, "", "[Error] only support 1-dim topology", None), "takes networks of one dimension only"),
        (Output(1, "[t] [workload] [critical] workload file: P.1.et does not exist\n", "", None), "P.1.et does not"),
    ],
)
def test_failures_are_explained(output: Output, message: str) -> None:
    with pytest.raises(RunFailedError, match=re.escape(message)):
        read_cycles(output, 2)


USUAL = (
    "[t] [system::topology] [info] ring\n" + LINE.format(0, 1, 1) + "[t] [statistics] [info] x\n[t] [info] Exiting\n"
)


@pytest.mark.parametrize(
    ("stdout", "stderr", "told"),
    [
        (USUAL + "loading 7 nodes\nthen nothing\x1b[2J\n", "", "(waiting for ever): loading 7 nodes | then nothing"),
        ("a\nb\nc\nd\ne\n", " \n", "(waiting for ever): b | c | d | e"),
        (USUAL, "", "(waiting for ever), and it said nothing of the cause"),
        ("a\n", "the cause\n", "(waiting for ever): the cause"),
        ("a " * 900, "", "(waiting for ever): a a a"),
    ],
)
def test_without_a_known_cause_the_last_lines_are_quoted(stdout: str, stderr: str, told: str) -> None:
    with pytest.raises(RunFailedError) as caught:
        read_cycles(Output(0, stdout, stderr, None), 2)
    assert told in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "Exiting" not in str(caught.value) and "ring" not in str(caught.value)


@pytest.mark.parametrize(("waiting", "more"), [(12, ""), (13, " and 1 more"), (40, " and 28 more")])
def test_at_most_twelve_waiting_ranks_are_named(waiting: int, more: str) -> None:
    with pytest.raises(RunFailedError) as caught:
        read_cycles(Output(0, LINE.format(waiting, 1, 1), "", None), waiting + 1)
    assert f"ranks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11{more} printed no finished line" in str(caught.value)
