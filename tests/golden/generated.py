"""Digests of generated workloads: the same settings and seed give the same bytes on every Python and NumPy.

    python tests/golden/generated.py          says which digests differ here from those held in generated.json
    python tests/golden/generated.py --write  makes them anew

It needs NumPy and nothing else, so that it runs with any pair of versions that Orrery takes.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELD = Path(__file__).resolve().with_name("generated.json")
COUNT = 5000
CASES = (
    "",
    "--profile alpaca-like --request_rate 20 --seed 1",
    "--request_rate inf --random_input_len 512 --random_output_len 64 --random_range_ratio 0.5",
    "--arrivals static --request_rate 3 --input_tokens 100 --output_lengths uniform",
    "--burstiness 0.25 --input_lengths normal --output_theta 1.2",
    "--burstiness 0.01",
    "--burstiness 40 --request_rate 0.3",
    "--burstiness 9999",
    "--burstiness inf",
    "--weibull_shape 0.4 --input_mean 3000 --input_cv 4",
    "--weibull_shape 3",
    "--on_time 3 --off_time 11",
    "--on_time 3 --off_time 11 --on_off_times fixed",
    "--diurnal_period 300 --diurnal_amplitude 1 --diurnal_phase 0.3",
    "--ramp_up_start_rps 1 --ramp_up_end_rps 50",
    "--ramp_up_strategy exponential --ramp_up_end_rps 99 --burstiness 0.7",
    "--prefill_to_decode_ratio 7 --total_lengths zipf",
    "--prefix_len 40 --prefix_groups 5 --prefix_depth 3 --prefix_share 0.7 --prefix_skew 1.1",
    "--sessions multi-turn --session_turns 3 --max_history 900",
    "--tool_calls 3 --session_turns 2 --tool_time 0.4 --tool_tokens 90 --prefix_len 33",
)
"""Flags of a lone client."""
MIXTURES = (
    ("--share 3", "--share 1 --burstiness 0.2 --priority 2", "--share 0.5 --tool_calls 1"),
    ("--share 2 --request_rate inf --input_tokens 7", "--share 1 --request_rate inf"),
    ("--request_rate 2 --prefix_len 10", "--request_rate 0.5 --sessions multi-turn"),
)
"""Flags of each client of a mixture."""


def digests() -> dict[str, str]:
    """Return the digest of each case: of all columns, and of the ids of some prompts and answers."""
    from foundation.settings.catalogue import catalogue
    from foundation.settings.command_line import parse
    from foundation.settings.reading import Layers, read
    from orchestrator.requests.generators.clients import ClientSettings
    from orchestrator.settings.run import WorkloadSettings

    known, client = catalogue(WorkloadSettings), catalogue(ClientSettings)
    found = {}
    for case in CASES:
        made = read(WorkloadSettings, Layers(flags=parse(case.split(), known)))
        found[case or "the sample"] = _digest(made.mixture, made.seed)
    for mixture in MIXTURES:
        clients = tuple(read(ClientSettings, Layers(flags=parse(one.split(), client))) for one in mixture)
        found[" | ".join(mixture)] = _digest(clients, 5)
    return found


def _digest(clients: tuple[object, ...], seed: int) -> str:
    from orchestrator.requests.generators.generating import Generator

    table = Generator(clients, seed, COUNT).table()  # type: ignore[arg-type]
    hashed = sha256()
    for column in (table.arrival_ns, table.prompt_tokens, table.output_tokens):
        hashed.update(column.astype("<i8").tobytes())
    if table.sessions is not None:
        hashed.update(table.sessions.number.astype("<i8").tobytes() + table.sessions.pause_ns.astype("<i8").tobytes())
    for ids in (table.prompt_ids, table.output_ids):
        for place in range(0, COUNT, 97) if ids is not None else ():
            hashed.update(json.dumps(list(ids.row(place) or ())).encode())  # type: ignore[union-attr]
    return hashed.hexdigest()[:24]


def main() -> int:
    """Compare, or write."""
    import numpy as np

    made = digests()
    if "--write" in sys.argv:
        HELD.write_text(json.dumps(made, indent=2) + "\n")
        return 0
    held = json.loads(HELD.read_text())
    wrong = [case for case in {**held, **made} if held.get(case) != made.get(case)]
    shown = ", ".join(wrong) if wrong else f"all {len(made)} digests are those held"
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}: {shown}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
