"""Places in a document: the keys and list positions that lead to a value from the top."""

from __future__ import annotations

from foundation.printable import printable

KeyPath = tuple[str | int, ...]


def shown_key_path(place: KeyPath) -> str:
    """Return a place as errors name it: ``requests[3].arrival``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}" if text else printable(part)
    return text
