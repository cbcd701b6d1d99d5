"""Texts are mutated by their tokens: bytes changed one by one seldom come past a parser of JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from random import Random

TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[A-Za-z_][A-Za-z0-9_-]*|[-+]?[0-9][0-9.eE+-]*|[ \t]+|.', re.DOTALL)
VALUES = (
    *(b"0", b"-1", b"1", b"2", b"7", b"1e400", b"-1e400", b"1e-320", b"NaN", b"Infinity", b"-0.0", b"0.5", b"1e15"),
    *(b"255", b"65536", b"2147483647", b"2147483648", b"4294967296", b"9223372036854775807", b"9223372036854775808"),
    *(b"18446744073709551616", b"1" + b"0" * 400, b"1_000", "１２".encode(), b"010", b"1e9", b"1e18", b"16777216"),
    *(
        b'""',
        b'"\\u0000"',
        b'"\\ud800"',
        b'"\\u001b[2J"',
        b"null",
        b"true",
        b"false",
        b"[]",
        b"{}",
        b"[[]]",
        b'{"a": 1}',
    ),
    *(b'"a"', b'"/dev/zero"', b'"' + b"x" * 300 + b'"', b"[1, 2]", b'["a"]', b'"\\uff11"'),
)
"""What stands in the place of a value, and may be too much for who reads it."""
PIECES = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\t", b",", b":", b";", b"-", b"/dev/zero", b"..", b"~"),
    *(b"&a ", b"*a", b"<<", b"!!python/none", b"2024-01-01", b"yes", b"0x10", b"'", b'"', b"[", b"}"),
)
"""What may stand anywhere, and breaks most files."""


def words_of(contents: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the distinct words, numbers and quoted texts of a corpus."""
    found = {token for content in contents for token in TOKEN.findall(content[: 1 << 16]) if len(token) > 1}
    return tuple(sorted(token for token in found if len(token) < 200 and token.strip()))


def token_mutation(words: Sequence[bytes]) -> Callable[[bytes, Random], bytes]:
    """Return a mutation of texts that replaces, removes, repeats, swaps and puts in tokens and lines."""

    def mutate(content: bytes, random: Random) -> bytes:
        tokens: list[bytes] = TOKEN.findall(content)
        for _ in range(random.choice((1, 1, 2, 4))):
            if random.random() < 0.15:
                tokens = TOKEN.findall(_lines_changed(b"".join(tokens), random))
            else:
                _change(tokens, words, random)
        return b"".join(tokens)

    return mutate


def _change(tokens: list[bytes], words: Sequence[bytes], random: Random) -> None:
    kind = random.randrange(8)
    values = [at for at, token in enumerate(tokens) if token[:1].isalnum() or token[:1] in b'"-.']
    if kind <= 3 and values:
        tokens[random.choice(values)] = _word(words, VALUES, random)
        return
    at = random.randrange(len(tokens) + 1)
    if at == len(tokens) or kind <= 4:
        tokens.insert(at, _word(words, PIECES, random))
    elif kind == 5:
        del tokens[at : at + random.choice((1, 1, 1, 4, 40))]
    elif kind == 6:
        start = random.randrange(len(tokens))
        tokens[at:at] = tokens[start : start + random.choice((1, 4, 40))] * random.choice((1, 1, 1, 30))
    else:
        other = random.randrange(len(tokens))
        tokens[at], tokens[other] = tokens[other], tokens[at]


def _word(words: Sequence[bytes], others: Sequence[bytes], random: Random) -> bytes:
    return random.choice(words if words and random.random() < 0.5 else others)


def _lines_changed(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    kind = random.randrange(3)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    else:
        lines[at:at] = [lines[at]] * random.choice((2, 100))
    return b"\n".join(lines)
