"""One registry for every choice point."""

import pytest

from foundation.errors import InternalError, UserError
from foundation.registry import Registry


def test_a_second_registration_of_a_name_raises() -> None:
    registry: Registry[int] = Registry("policy")
    registry.register("fcfs")(1)
    with pytest.raises(InternalError, match="'fcfs' is registered twice"):
        registry.register_lazy("fcfs", "module", "attribute")


def test_an_unknown_name_lists_the_near_ones_and_the_flag() -> None:
    registry: Registry[int] = Registry("policy")
    registry.register("fcfs")(1)
    with pytest.raises(UserError, match=r"--scheduling: unknown policy 'fcsf'; did you mean fcfs\?"):
        registry.get("fcsf", field="--scheduling")


def test_a_lazy_choice_is_imported_when_it_is_first_used() -> None:
    registry: Registry[object] = Registry("codec")
    registry.register_lazy("json", "json", "dumps")
    assert list(registry) == ["json"]
    import json

    assert registry.get("json") is json.dumps
