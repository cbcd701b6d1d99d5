"""What is named in place of a model or a device, and is no ordinary file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.errors import UserError
from trace_gen.hardware import load_hardware
from trace_gen.models import load_model


@pytest.mark.parametrize("load", [load_model, load_hardware])
def test_a_pipe_is_named_as_what_it_is(load: Callable[[str], object], tmp_path: Path) -> None:
    """Not taken for an unknown name, nor for a file that is missing."""
    for name in ("pipe", "pipe.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match=r"cannot be read: it is a pipe; name an ordinary file"):
            load(str(tmp_path / name))
