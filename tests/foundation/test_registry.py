"""One registry for every choice point."""

import sys
from pathlib import Path

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


def test_a_choice_that_others_imported_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python, records are made without asking the registry; what nobody has imported is left alone."""
    registry: Registry[object] = Registry("codec")
    registry.register_lazy("absent", "no_module_at_all", "Codec")
    registry.register_lazy("mine", "codec_module", "Codec")
    (tmp_path / "codec_module.py").write_text("class Codec: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import codec_module

    assert registry.name_of(codec_module.Codec) == "mine"
    with pytest.raises(InternalError, match="is no registered codec"):
        registry.name_of(codec_module)


def test_a_file_in_the_package_is_a_choice_and_loads_only_when_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "policy_package"
    package.mkdir()
    (package / "__init__.py").write_text("from foundation.registry import Registry\n")
    (package / "contract.py").write_text(
        "from foundation.registry import Registry\nkinds = Registry('kind', package='policy_package')\n"
    )
    for name in ("early", "late"):
        source = f"from policy_package.contract import kinds\nkinds.register({name!r})({name!r})\n"
        (package / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    kinds = import_module("policy_package.contract").kinds
    assert kinds.get("early") == "early"
    assert "policy_package.late" not in sys.modules
    assert list(kinds) == ["early", "late"]
    with pytest.raises(UserError, match="did you mean late"):
        kinds.get("lat")
