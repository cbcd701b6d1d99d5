"""A table of wrong inputs: each is one line on stderr that says what is wrong, exit code 2, and nothing is written.

The ``.txt`` files beside this one are the table: a command line, and indented below it its line, word for word.
`files` has the files that it names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from golden.printed import MODULES

from foundation.commands import run_command
from tests.wrong_inputs.files import write_all

HERE = Path(__file__).parent
COMMANDS = MODULES | {"astra_sim": "external.astra_sim.__main__", "profiler": "profiler.command"}
LONGEST = 700
"""Characters of a line; nobody reads more."""
GOOD = (
    "main --req_num 2 --model_name gpt2 --dataset good.tsv",
    "main --req_num 2 --model_name m/good.json --network n/good.yml --system s/good.json --npu_num 4",
    "main --req_num 2 --model_name gpt2 --remote_memory r/good.json --settings f/good.yaml",
    "main --req_num 2 --model_name gpt2 --dataset good.tsv --network n/good.yml --system s/least.json --npu_num 4",
    "main --req_num 1 --model_name gpt2 --dataset good.tsv --network n/good.yml --system s/most.json --npu_num 4",
    "replay c/good.json",
    "main --req_num 1 --model_name gpt2 --hardware d/good.json --dataset azure.csv",
    "main --req_num 1 --model_name gpt2 --dataset reallm.csv",
    "main --model_name gpt2 --dataset good.jsonl --clients 2 --rag_service 5 --max_queued_requests 3 --ttft_timeout 9",
    "reallm l/good.yaml made --code azure.csv",
    "main kernels l/good.yaml --list kernels.csv",
    "main pipeline l/good.yaml --output done --max_tokens 64 --max_context 64 --max_requests 4 --processes 1",
    "main --req_num 2 --model_name kt/small.json --profile_dir kt/good",
    "run_files f/good.yaml",
    "main --req_num 2 --cluster_config k/good.json",
    "main --req_num 2 --engine_config e/good.json",
    "main --req_num 2 --model_name gpt2 --node o/good.json --npu_num 8",
    "main --req_num 2 --model_name gpt2 --fabric fa/good.json --npu_num 2",
    "main --req_num 2 --model_name gpt2 --fabric fa/all_reduce.txt --npu_num 2",
    "main validate --recorded v/good/requests.jsonl --simulated v/run.csv",
    "main validate --recorded b/good.json --simulated v/run.csv",
    "main estimate --model_name opt --gpu A100 --prompt_length 9 --response_length 3 --registry g/good",
)


def table() -> Iterator[tuple[str, str]]:
    """Yield command lines and what each is told."""
    for path in sorted(HERE.glob("*.txt")):
        lines = path.read_text().splitlines()
        for command, said in zip(lines[::2], lines[1::2], strict=True):
            assert said.startswith("    ") and not command.startswith(" "), command
            yield command, said.strip()


TABLE = list(table())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wrong")
    write_all(made)
    return made


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")

    def run(command: str) -> int:
        words = shlex.split(command)
        monkeypatch.setattr("sys.argv", words)
        return run_command(import_module(COMMANDS[words[0]]).main)

    return run


@pytest.mark.parametrize(("command", "said"), TABLE, ids=[command for command, _ in TABLE])
def test_wrong_input_is_one_line_and_exit_code_2(
    command: str, said: str, folder: Path, call, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    code = call(command)
    told = capsys.readouterr()
    assert code == 2, told.out + told.err
    assert told.err.startswith("error: ") and told.err.count("\n") == 1
    assert _comparable(told.err.replace(f"{folder}/", "")) == _comparable(f"error: {said}\n")
    assert len(told.err) <= LONGEST and told.err.isprintable() is False  # its newline alone is not
    assert told.err.rstrip("\n").isprintable()
    assert sorted(folder.rglob("*")) == before, "nothing is written"


def _comparable(line: str) -> str:
    """Return `line` up to what argparse words by the version of Python."""
    return line.partition(" (choose from")[0]


@pytest.mark.parametrize("command", GOOD)
def test_the_same_files_without_their_faults_are_taken(command: str, call) -> None:
    assert call(command) == 0


def test_the_table_is_long_and_knows_every_command() -> None:
    assert len(TABLE) >= 400 and len({command for command, _ in TABLE}) == len(TABLE)
    assert {command.split()[0] for command, _ in TABLE} == set(COMMANDS)
