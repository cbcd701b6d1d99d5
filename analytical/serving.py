"""``python -m analytical --serve``: many runs in one process, asked for on standard input.

A request is a line of JSON, ``{"folder": PATH, "arguments": [FLAG, ...]}``: the command line as it would be given in
that folder. The answer is a line of JSON, ``{"exit_code": N, "stdout": TEXT, "stderr": TEXT}``: what the command would
have returned and printed there. Answers come in the order of the requests, each before the next request is read. The
end of input ends the server; a request that is none is answered as wrong input, and the next one is served.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence
from io import StringIO
from typing import TextIO

from analytical.command import Simulator
from analytical.command_line import command_help, read_command
from foundation.documents import parse_json
from foundation.errors import OrreryError, UserError
from foundation.fields import Fields
from foundation.files import reason
from foundation.printable import printable

LONGEST_REQUEST = 1 << 22
"""Characters of a request; of a longer line the rest is skipped."""

DEFECT = 70
"""Exit code of a run that shows a defect of ours; standard error then has the traceback. (EX_SOFTWARE of sysexits.h)"""


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer `requests` on `answers` until they end. The current folder is the request's while it is served."""
    simulator = Simulator()
    while line := requests.readline(LONGEST_REQUEST):
        rest = line
        while len(rest) == LONGEST_REQUEST and not rest.endswith("\n"):
            rest = requests.readline(LONGEST_REQUEST)  # the rest of a line that is too long goes unread
        answers.write(json.dumps(_answer(simulator, line)) + "\n")
        answers.flush()


def _answer(simulator: Simulator, line: str) -> dict[str, object]:
    out, err = StringIO(), StringIO()
    try:
        folder, arguments = _request(line)
        _enter(folder)
        _run(simulator, arguments, out)
        code = 0
    except OrreryError as error:
        err.write(f"error: {printable(str(error))}\n")
        code = error.exit_code
    except Exception:
        traceback.print_exc(file=err)
        code = DEFECT
    # As the command's own: what a run printed before it failed is kept.
    return {"exit_code": code, "stdout": out.getvalue(), "stderr": err.getvalue()}


def _run(simulator: Simulator, arguments: Sequence[str], out: TextIO) -> None:
    if any(argument in ("-h", "--help") for argument in arguments):
        out.write(command_help() + "\n")
        return
    command = read_command(arguments)
    if command.output.serve:
        raise UserError("a request cannot ask for a server", field="--serve", fix="leave it out")
    simulator.run(command, out)


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be entered: {reason(error)}", path=folder, fix="name the folder of the files"
        ) from None


def _request(line: str) -> tuple[str, Sequence[str]]:
    """Return the folder and the arguments of a request. Raises `UserError`."""
    if not line.endswith("\n"):
        raise UserError(f"a request is a line of at most {LONGEST_REQUEST} characters", fix="write a shorter one")
    fields = Fields.of(parse_json(line, "request"))
    folder, arguments = fields.text("folder"), fields.texts("arguments")
    fields.only(("folder", "arguments"))
    fields.finish()
    return folder, arguments
