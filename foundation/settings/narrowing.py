"""The part of a catalogue that one command line needs, so that a plain run imports the choices it makes and no others.

What the whole catalogue is needed for (a name that the chosen records do not know, a choice that follows from another
setting, anything that is wrong) has no narrow one: the caller then takes the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from foundation.settings.catalogue import Catalogue
from foundation.settings.declare import Setting


def narrowed(root: type, arguments: Sequence[str], *, whole_for: Collection[str]) -> Catalogue | None:
    """Return the catalogue of `root` with the choices made in `arguments`, None where only the whole one will do.

    `whole_for`: settings that bring values, or names, from elsewhere.
    """
    given: dict[str, str] = {}
    for place, word in enumerate(arguments):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = arguments[place + 1] if place + 1 < len(arguments) else ""
            given[name.replace("-", "_")] = value if equals else following
    picked = Catalogue(root, given)
    for name in given:
        spelling = picked.spellings.get(name)
        if spelling is None or spelling.name in whole_for:
            return None
        declaration = picked.entries[spelling.name].declaration
        if isinstance(declaration, Setting) and declaration.implies:
            return None
    return picked
