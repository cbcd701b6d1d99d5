"""Streams of random bits, one for each purpose: what is drawn for one never depends on what is drawn for another.

A stream is the Mersenne Twister of Python's `random.Random(f"{seed}/{purpose}")`, read in blocks: both Python and NumPy
promise that its bits do not change. The n-th draw is a function of the seed, the purpose and n.
"""

from __future__ import annotations

from random import Random

import numpy as np

from orchestrator.requests.generators.elementary import FloatArray

_LEAST = 2.0**-54


class Stream:
    """The draws of one purpose, in order."""

    def __init__(self, seed: str, purpose: str) -> None:
        _, words, _ = Random(f"{seed}/{purpose}").getstate()
        self._bits = np.random.MT19937()
        key = np.array(words[:-1], dtype=np.uint32)
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": words[-1]}}

    def uniforms(self, count: int) -> FloatArray:
        """Return the next draws, numbers between 0 and 1, both excluded, with 53 bits each."""
        words = np.asarray(self._bits.random_raw(2 * count), dtype=np.uint64)
        bits = ((words[0::2] >> np.uint64(5)) << np.uint64(26)) | (words[1::2] >> np.uint64(6))
        return np.maximum(bits.astype(np.float64) * 2.0**-53, _LEAST)
