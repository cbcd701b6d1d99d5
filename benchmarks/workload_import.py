"""How long imports take, and how much memory: made-up files of a million requests in the formats that come that large.

    python -m benchmarks.workload_import [ROWS]

For each format: seconds of CPU and of wall time for the whole import, in a process of its own, and by how much the
process grew, beside the bytes of the columns that it ends with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

ROWS = 1_000_000
_COLUMN_BYTES = 8 * 5
"""Of a request: id, prompt, output, arrival, line."""


def azure(rows: int) -> Iterator[str]:
    yield "TIMESTAMP,ContextTokens,GeneratedTokens"
    draws, now = Random(0), datetime(2024, 5, 10, tzinfo=UTC)
    for _ in range(rows):
        now += timedelta(microseconds=draws.randrange(1_200_000))
        yield f"{now:%Y-%m-%d %H:%M:%S.%f}+00:00,{draws.randrange(1, 7000)},{draws.randrange(1, 900)}"


def burstgpt(rows: int) -> Iterator[str]:
    yield "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    draws, now = Random(0), 5
    for _ in range(rows):
        now += draws.randrange(3)
        prompt, output = draws.randrange(1, 7000), max(0, draws.randrange(-20, 900))
        yield f"{now},ChatGPT,{prompt},{output},{prompt + output},Conversation log"


def vidur(rows: int) -> Iterator[str]:
    yield "arrived_at,num_prefill_tokens,num_decode_tokens"
    draws, now = Random(0), 1.0
    for _ in range(rows):
        now += draws.expovariate(10)
        yield f"{now!r},{draws.randrange(1, 7000)},{draws.randrange(1, 900)}"


def tsv(rows: int) -> Iterator[str]:
    draws = Random(0)
    for at in range(rows):
        yield f"{draws.randrange(1, 7000)}\t{draws.randrange(1, 900)}\t{at * 10**8}"


def mooncake(rows: int) -> Iterator[str]:
    draws = Random(0)
    for at in range(rows // 10):
        prompt = draws.randrange(1, 12_000)
        hashes = [draws.randrange(2 * 10**5) for _ in range(-(-prompt // 512))]
        yield json.dumps({"timestamp": at, "input_length": prompt, "output_length": 5, "hash_ids": hashes})


def sharegpt(rows: int) -> Iterator[str]:
    draws = Random(0)
    yield "["
    for at in range(rows // 10):
        turns = [{"from": "human", "value": "a b " * draws.randrange(99)}, {"from": "gpt", "value": "c " * 200}]
        yield json.dumps({"id": str(at), "conversations": turns}) + ("," if at < rows // 10 - 1 else "")
    yield "]"


MADE: tuple[Callable[[int], Iterator[str]], ...] = (azure, burstgpt, vidur, tsv, mooncake, sharegpt)
_IMPORT = """
import resource, sys, time
import orchestrator.requests.importing.columns
import orchestrator.requests.importing.rows
from orchestrator.requests.formats import read_requests
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
read = read_requests(sys.argv[1])
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(len(read.requests), wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(
        f"{'format':<10} {'requests':>9} {'file MB':>8} {'wall s':>7} {'CPU s':>7} {'grew MiB':>9} {'columns MiB':>12}"
    )
    for make in MADE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "workload"
            with path.open("w") as stream:
                stream.writelines(f"{line}\n" for line in make(rows))
            done = subprocess.run(
                [sys.executable, "-c", _IMPORT, path], check=True, capture_output=True, text=True
            ).stdout.split()
            count, size = int(done[0]), path.stat().st_size / 1e6
            grew, columns = int(done[3]) / 1024, count * _COLUMN_BYTES / 2**20
        wall, cpu = float(done[1]), float(done[2])
        print(f"{make.__name__:<10} {count:>9} {size:>8.0f} {wall:>7.2f} {cpu:>7.2f} {grew:>9.0f} {columns:>12.0f}")


if __name__ == "__main__":
    main()
