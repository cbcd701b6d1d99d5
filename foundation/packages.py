"""Other Python packages: which versions are installed, and where their files are, without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from foundation.errors import UserError


def version_of(distribution: str) -> str | None:
    """Return the installed version of what pip calls `distribution`; None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def package_folder(distribution: str, needed: str, module: str, fix: str) -> Path:
    """Return the folder of the package `module`, which the `distribution` brings in the version `needed`.

    Raises `UserError` with `fix` where it is not installed, or in another version.
    """
    found = version_of(distribution)
    if found is None:
        raise UserError(f"{distribution} {needed} is not installed", fix=fix)
    if found != needed:
        raise UserError(f"{distribution} {found} is installed, but {needed} is what is read", fix=fix)
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{distribution} {needed} has no package {module}", fix=fix)
    return Path(spec.submodule_search_locations[0])
