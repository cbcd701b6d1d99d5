"""The plain twin of a module that calls compiled functions is plain all the way down."""

from __future__ import annotations

from orchestrator.engine.compiled import contents, engine
from tests.helpers.two_ways import plain_module


def test_a_plain_module_calls_plain_functions() -> None:
    for module, names in ((engine, ("run", "next_ns")), (contents, ("number_blocks", "move_slots"))):
        plain = plain_module(module.__name__)
        assert plain is not module
        for name in names:
            assert type(getattr(plain, name)).__name__ == "function"
