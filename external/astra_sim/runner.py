"""The seam between the backend and whatever runs the binary: a folder of inputs goes in, its output comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from foundation.records import dataclass


class RunFailedError(Exception):
    """The binary could not be run to its end: it hung, was killed, or nothing answered. The message says which.

    The backend adds the iteration and the folder and raises it as a `SimulationError`.
    """


@dataclass(frozen=True, slots=True)
class Output:
    """What one run of the binary left: `exit_code` (negative: the signal that ended it), its two streams as text.

    `identity` says what ran, by content; None where the runner cannot know, and the answer is then not cached.
    """

    exit_code: int
    stdout: str
    stderr: str
    identity: str | None


class Runner(Protocol):
    """Runs the binary on prepared folders; several may be under way at once, from several threads."""

    @property
    def description(self) -> str:
        """What runs, for messages: a path, an image, a spool folder."""

    def identity(self) -> str | None:
        """Return what will answer, by content (a hash, an image id), or None where its content proves nothing."""

    def new_folder(self, name: str) -> Path:
        """Make and return an empty folder that the binary will run in. Raises `OSError`."""

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """Run the binary in `folder`, to which file names in `arguments` are relative. Raises `RunFailedError`."""

    def command_line(self, arguments: Sequence[str]) -> str:
        """Return the shell command that repeats a run by hand, in the folder it ran in."""

    def discard(self, folder: Path) -> None:
        """Remove a folder whose run went well."""

    def locate(self, folder: Path) -> Path:
        """Return where the folder of a run that went wrong is kept."""

    def close(self) -> None:
        """Stop what runs. Folders of failed runs stay, everything else goes."""
