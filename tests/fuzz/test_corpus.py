"""The corpus of every reader goes through it again: values or errors, as the fuzzer asks, and quickly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.fuzz import corpus
from benchmarks.fuzz.target import check, targets

LARGEST = 300_000
"""Bytes of all corpora together."""
ONLY_READ = ("result_cache", "serve", "spool_request", "tested_et", "tested_text")
"""Readers that have an answer to whatever comes."""


@pytest.mark.parametrize("reader", list(targets))
def test_corpus(reader: str) -> None:
    """Each input is read or refused; each reader's corpus holds both."""
    if reader == "onnx":
        pytest.importorskip("onnx", reason="the onnx package is an extra: pip install 'orrery-sim[onnx]'")
    counts = Counter[str]()
    with TemporaryDirectory() as folder:
        for path in corpus.files(reader):
            error = check(targets.get(reader), path.read_bytes(), Path(folder))
            counts["read" if error is None else "refused"] += 1
    assert counts["read"] >= 1
    assert counts["refused"] >= 1 or reader in ONLY_READ
    assert counts.total() >= 2


def test_corpora_are_small_and_every_one_has_a_reader() -> None:
    assert {path.name for path in corpus.FOLDER.iterdir()} == set(targets)
    assert sum(path.stat().st_size for path in corpus.FOLDER.rglob("*") if path.is_file()) < LARGEST
