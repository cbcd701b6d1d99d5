"""What the commands say of themselves: their help, and the schemas of their files, as users and editors get them.

Each page is held as text in `pages` beside this file, so that a default, a bound or a sentence changes on purpose only.
They are made anew by

    python tests/golden/pages.py
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
HELD = Path(__file__).resolve().with_name("pages")
PAGES = {
    "main.help": ("orchestrator.cli", "--help"),
    "main.schema": ("orchestrator.cli", "--schema"),
    "validate.help": ("orchestrator.cli", "validate", "--help"),
    "calibrate.help": ("orchestrator.cli", "calibrate", "--help"),
    "kernels.help": ("orchestrator.cli", "kernels", "--help"),
    "pipeline.help": ("orchestrator.cli", "pipeline", "--help"),
    "analytical.help": ("analytical.__main__", "--help"),
    "converters.help": ("converters.__main__", "--help"),
    "trace_test.help": ("trace_test.__main__", "--help"),
    "replay.help": ("orchestrator.replay.__main__", "--help"),
    "workload.help": ("orchestrator.cli", "workload", "--help"),
    "reallm.help": ("orchestrator.reallm.__main__", "--help"),
    "run_files.help": ("orchestrator.run_files", "--help"),
    "astra_sim.help": ("external.astra_sim.__main__", "--help"),
    "astra_sim-check.help": ("external.astra_sim.__main__", "check", "--help"),
    "astra_sim-serve.help": ("external.astra_sim.__main__", "serve", "--help"),
    "trace_test.rules": ("trace_test.__main__", "--list-rules"),
}
"""The module and the words of each page."""
_OWN_FORM = ("main.help", "validate.help", "calibrate.help", "analytical.help", "workload.help")
"""Pages that are ours from the first line on; argparse makes the others."""
_COLUMNS = "120"


def page(name: str) -> str:
    """Return what a command prints, less what Python's version decides: argparse's usage, and how it writes flags."""
    module, *words = PAGES[name]
    shown = StringIO()
    told = patch.object(sys, "argv", [name.split(".")[0], *words])
    with told, patch.dict(os.environ, {"COLUMNS": _COLUMNS}), redirect_stdout(shown), suppress(SystemExit):
        main: Callable[[], object] = import_module(module).main
        main()
    text = shown.getvalue()
    if name not in _OWN_FORM:
        text = re.sub(r"\Ausage: python -m .*?\n\n", "", text, flags=re.DOTALL)
    text = re.sub(r"(--[\w-]+) (\S+), (--[\w-]+) \2(?=\s)", r"\1, \3 \2", text)
    return text if name.startswith("main") else re.sub(r"[^\S\n]*\n?[^\S\n]{3,}", " ", text)


def _write() -> None:
    HELD.mkdir(exist_ok=True)
    for name in PAGES:
        (HELD / f"{name}.txt").write_text(page(name))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _write()
