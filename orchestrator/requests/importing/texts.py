"""How many tokens a text has: by a tokenizer that the user has, or at so many characters a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foundation.errors import UserError
from foundation.printable import brief

DEFAULT_CHARS_PER_TOKEN = 4.0
"""OpenAI's rule of thumb for English (help.openai.com, "What are tokens and how to count them?")."""
_FILE = "tokenizer.json"


class Counted(NamedTuple):
    """A text in tokens: how many, and their ids (empty: not known)."""

    tokens: int
    ids: Sequence[int]


class TextTokens:
    """Counts the tokens of texts, each by itself and without special tokens or chat templates.

    `tokenizer` is a file of Hugging Face's `tokenizers` library, or a folder with one called tokenizer.json; it is
    loaded when the first text comes. Without one a text has its characters over `chars_per_token` tokens, rounded up.
    """

    def __init__(self, tokenizer: Path | None = None, chars_per_token: float | None = None) -> None:
        self.used = False
        self._path = tokenizer
        self._ratio = DEFAULT_CHARS_PER_TOKEN if chars_per_token is None else chars_per_token
        self._loaded: Any = None

    @property
    def described(self) -> str:
        """How texts are counted, in a few words."""
        if self._path is not None:
            return f"token counts by the tokenizer {self._path}"
        return f"token counts estimated at {self._ratio:g} characters a token"

    def of(self, text: str) -> Counted:
        """Return what `text` comes to."""
        self.used = True
        if self._path is None:
            return Counted(math.ceil(len(text) / self._ratio), ())
        if self._loaded is None:
            self._loaded = _load(self._path)
        ids = self._loaded.encode(text, add_special_tokens=False).ids
        return Counted(len(ids), ids)


def _load(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        fix = "install it with pip install 'orrery-sim[tokenizer]', or give --chars_per_token"
        raise UserError("needs the package tokenizers", field="--tokenizer", fix=fix) from None
    file = path / _FILE if path.is_dir() else path
    if not file.is_file():
        what = f"no {_FILE} in the folder" if path.is_dir() else "the tokenizer file does not exist"
        fix = f"name a {_FILE}, or a folder that has one; nothing is downloaded"
        raise UserError(what, path=path, field="--tokenizer", fix=fix)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain `Exception`
        raise UserError(f"not a tokenizer file: {brief(str(error))}", path=file, field="--tokenizer") from None
