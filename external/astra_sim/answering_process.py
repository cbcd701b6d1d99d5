"""Our own `analytical` command as a server of a spool folder runs it: one process that answers request after request.

Starting Python takes hundreds of milliseconds, a graph a few. What ends the process (a run that takes too long, prints
without end or kills it) costs the request that did it; the next one has a new process.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from typing import IO

from external.astra_sim.process import MOST_OUTPUT_BYTES, end
from external.astra_sim.runner import Output, RunFailedError
from foundation.documents import parse_json
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.files import reason

COMMAND = (sys.executable, "-m", "analytical", "--serve")
"""A line of JSON on its input is a request, a line on its output the answer (`analytical.serving`)."""


class _Late:
    """Ends a process when its time is over, and knows that it did."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.ended = process, False

    def end(self) -> None:
        """End the process."""
        self.ended = True
        end(self._process)


class AnsweringProcess:
    """An `Answerer` (`external.astra_sim.serve`): hands each request to `command`, and ends it after `timeout_s`."""

    identity: str | None = None

    def __init__(self, timeout_s: float, command: Sequence[str] = COMMAND) -> None:
        self._command, self._timeout_s = list(command), timeout_s
        self.description = shlex.join(command)
        self._process: subprocess.Popen[str] | None = None

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """Answer one request in `folder`. Raises `RunFailedError`."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        late = _Late(process)
        timer = Timer(self._timeout_s, late.end)
        timer.start()
        try:
            return self._ask(process.stdin, process.stdout, {"folder": str(folder), "arguments": list(arguments)})
        except (OSError, UserError) as error:
            self.close()
            limit = f"it hung: no end after {self._timeout_s:g} s (--backend_timeout sets the limit)"
            raise RunFailedError(limit if late.ended else f"it ended in mid-run: {error}") from error
        finally:
            timer.cancel()
            timer.join()
            if late.ended:
                self.close()  # also where it ended just after its answer

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            end(process)
            process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise RunFailedError(f"it cannot be started: {reason(error)} ({self._command[0]})") from error

    def _ask(self, requests: IO[str], answers: IO[str], request: dict[str, object]) -> Output:
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        line = answers.readline(MOST_OUTPUT_BYTES)
        if not line.endswith("\n"):
            raise UserError(f"its answer is no line of at most {MOST_OUTPUT_BYTES} characters")
        fields = Fields.of(parse_json(line, "answer"))
        exit_code, out, err = fields.integer("exit_code"), fields.text("stdout"), fields.text("stderr")
        fields.finish()
        return Output(exit_code, out, err, self.identity)
