"""The command line of the profiler."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from foundation.arguments import Parser, whole
from foundation.digits import whole_number
from foundation.documents import read_json
from foundation.errors import UserError
from foundation.printable import brief, printable
from profiler.device import Device
from profiler.grids import Grids
from profiler.profiling import BITS, Job, profile
from profiler.work import Work
from trace_gen.models import load_model

LINE_EVERY_S = 5.0
MOST_COLLECTIVE_BYTES = 2**28
MOST_RANKS = 1024
_EXAMPLES = """\
examples:
  python -m profiler --model config.json --out profiled                     the first GPU
  python -m profiler --model Llama-3.1-8B --tensor 1,2,4 --out profiled     shards of one, two and four GPUs, on one GPU
  python main.py --model_name Llama-3.1-8B --profile_dir profiled           what the device takes for it
"""


def parser() -> Parser:
    """Return the command line's parser."""
    grids = Grids()
    result = Parser(
        prog="python -m profiler",
        description="Time the operators of a model on the device at hand, and write tables that --profile_dir and "
        "--perf_table read. A profile that was interrupted goes on when it is started again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--model", required=True, help="a config.json, its folder, or the name of a shipped model")
    result.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the tables")
    result.add_argument("--hardware", metavar="NAME", help="what --hardware calls the device (default: its own name)")
    result.add_argument("--device", default="cuda:0", metavar="NAME", help="cuda:N or cpu (default: cuda:0)")
    result.add_argument("--dtype", choices=tuple(BITS), default="bf16", help="width of numbers (default: bf16)")
    result.add_argument("--tensor", default="1", metavar="N,...", help="degrees of tensor parallelism (default: 1)")
    result.add_argument("--even_if_busy", "--even-if-busy", action="store_true", help="measure while others compute")
    result.add_argument("--collectives", type=whole(2), metavar="N", help="time collectives of 2 to N GPUs, too")
    result.add_argument(
        "--collective_bytes",
        "--collective-bytes",
        type=whole(1024, 2**34),
        default=MOST_COLLECTIVE_BYTES,
        metavar="N",
        help=f"largest message of a collective ({MOST_COLLECTIVE_BYTES})",
    )
    sizes = result.add_argument_group("sizes")
    for name, default, what in (
        ("max_tokens", grids.max_tokens, "tokens of a batch"),
        ("max_sequences", grids.max_sequences, "requests of a batch"),
        ("max_context", grids.max_context, "tokens of a request in the KV cache"),
    ):
        flag = f"--{name}"
        sizes.add_argument(
            flag, flag.replace("_", "-"), type=whole(1), default=default, metavar="N", help=f"{what} ({default})"
        )
    help_cached = "tokens in the KV cache of all requests together (default: what fits)"
    sizes.add_argument("--max_cached", "--max-cached", type=whole(1), metavar="N", help=help_cached)
    for name, factor in (("chunk_factor", grids.chunk_factor), ("context_factor", grids.context_factor)):
        flag = f"--{name}"
        help_factor = f"{name.partition('_')[0]}s grow by this ({factor:g})"
        sizes.add_argument(flag, flag.replace("_", "-"), type=_factor, default=factor, metavar="F", help=help_factor)
    return result


def main(device_of: Callable[[str, str], Device] | None = None) -> int:
    """Run the command line of this process; return the exit code. `device_of` makes a device of its name and dtype."""
    asked = parser().parse_args()
    _check_device(asked.device)
    degrees = _degrees(asked.tensor)
    if asked.hardware:
        _plain(asked.hardware)
    model = load_model(asked.model)
    device = (device_of or _torch_device)(asked.device, asked.dtype)
    hardware = asked.hardware or re.sub(r"[^\w.+-]+", "-", str(device.identity()["device"]))
    job = Job(
        model=model,
        architecture=_model_type(asked.model),
        degrees=degrees,
        grids=Grids(
            asked.max_tokens,
            asked.max_sequences,
            asked.max_context,
            asked.chunk_factor,
            asked.context_factor,
            asked.max_cached,
        ),
        dtype=asked.dtype,
        hardware=_plain(hardware),
        out=asked.out,
        even_if_busy=asked.even_if_busy,
    )
    went = profile(job, device, _Progress())
    print(printable(f"{asked.out}: {went.timed} timings measured, {went.known} known, of {model.name} on {hardware}"))
    if asked.collectives:
        _collectives(asked.out, asked.device.partition(":")[0], hardware, asked.collectives, asked.collective_bytes)
    return 0


class _Progress:
    """Says how far a profile is, in plain lines on standard error; the clock decides when."""

    def __init__(self) -> None:
        self._begun = self._said = 0.0
        self._first: int | None = None

    def __call__(self, done: int, total: int, work: Work) -> None:
        now = monotonic()
        if self._first is None:
            self._first, self._begun, self._said = done, now, now
        if now - self._said < LINE_EVERY_S:
            return
        self._said = now
        left = (now - self._begun) / max(1, done - self._first) * (total - done)
        print(f"{done} of {total} timings done, {left / 60:.1f} min left; now {work}", file=sys.stderr, flush=True)


def _torch_device(name: str, dtype: str) -> Device:
    from profiler.torch_device import TorchDevice

    return TorchDevice(name, dtype)


def _collectives(folder: Path, device: str, hardware: str, most: int, largest: int) -> None:
    from profiler.collectives import NAME, ranks_up_to, sizes_up_to, write_fabric

    if (folder / NAME).is_file():
        print(printable(f"{folder / NAME} is there; remove it to time collectives again"))
        return
    origin = f"python -m profiler on {hardware}"
    path = write_fabric(folder, device, origin, ranks_up_to(most), sizes_up_to(largest))
    print(printable(f"{path}: collectives of up to {most} ranks"))


def _model_type(name_or_path: str) -> str:
    """Return what the configuration file calls its kind of model; empty for a shipped name."""
    path = Path(name_or_path)
    path = path / "config.json" if path.is_dir() else path
    return str(read_json(path, "model configuration").value.get("model_type", "")) if path.is_file() else ""


def _degrees(text: str) -> tuple[int, ...]:
    """Return degrees of tensor parallelism, 1 among them: attention placed by request, and experts, are whole."""
    degrees = [whole_number(word, 1, MOST_RANKS) for word in text.split(",")]
    known = [degree for degree in degrees if degree is not None]
    if len(known) < len(degrees):
        raise UserError(f"{brief(text)} is no list of degrees", field="--tensor", fix="write 1,2,4")
    return tuple(sorted({1, *known}))


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1.1 <= value <= 16:
        raise argparse.ArgumentTypeError(f"{brief(text)} is not a number from 1.1 to 16")
    return value


def _check_device(name: str) -> None:
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise UserError(f"{brief(name)} is no device", field="--device", fix="give cuda:0, or cpu")


def _plain(hardware: str) -> str:
    """Return the device's name, which is that of a file, too."""
    if not re.fullmatch(r"[\w+-][\w.+-]{0,99}", hardware):
        what = f"{brief(hardware)} cannot name a device"
        raise UserError(what, field="--hardware", fix="use letters, digits, dots and dashes")
    return hardware
