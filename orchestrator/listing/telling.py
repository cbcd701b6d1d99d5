"""What commands that list things print: a table of all, everything of one, or either for programs."""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol, TextIO


class Listing(Protocol):
    """What there is of a kind; a name that is none of them is a `foundation.errors.UserError`."""

    def all_as_json(self) -> Any:
        """Return what `print_all` prints, for programs."""

    def one_as_json(self, name: str) -> Any:
        """Return what `print_one` prints, for programs."""

    def print_all(self, stream: TextIO) -> None:
        """Print a table of all."""

    def print_one(self, name: str, stream: TextIO) -> None:
        """Print every figure of one."""


def tell(listing: Listing, name: str | None, *, as_json: bool) -> None:
    """Print all that there is, or the one called `name`."""
    if as_json:
        print(json.dumps(listing.all_as_json() if name is None else listing.one_as_json(name), indent=2))
    elif name is None:
        listing.print_all(sys.stdout)
    else:
        listing.print_one(name, sys.stdout)
