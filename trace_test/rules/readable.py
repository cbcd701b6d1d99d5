"""The file can be read at all."""

from __future__ import annotations

from collections.abc import Iterator

from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Report what the reader said."""
    if subject.unreadable:
        yield Violation("file", subject.unreadable)


RULE = Rule(
    name="readable",
    about="The file is a trace: every line or message parses, node ids are unique and every id that is waited for "
    "exists, and no rank's file is missing between others.",
    cause="a file that was cut off, written by another program's version, or numbered anew without its dependencies",
    needs="file",
    check=check,
)
