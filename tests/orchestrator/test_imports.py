"""Workloads of other tools, made by us in small: known by their content, read to requests, malformed records told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from orchestrator.request_source import UNTIMED, open_source
from orchestrator.requests.formats import OWN, RequestFormat, read_requests, request_formats
from orchestrator.requests.importing.beginning import Beginning, beginning_of
from orchestrator.requests.importing.reading import BadRecords, Reading
from orchestrator.requests.importing.texts import TextTokens
from orchestrator.settings.run import WorkloadSettings
from orchestrator.workload import ReadWorkload

SAMPLES = Path(__file__).parent / "samples"
TOKENIZER = SAMPLES / "tokenizer.json"
RATIO = "token counts estimated at 4 characters a token"
FROM_FILE = "token counts from the file"
Row = tuple[int, int, int, int | None, int | None]
"""Prompt, output, arrival (ns), line, session."""

VALUES: dict[str, tuple[str, bool, list[Row], tuple[str, ...]]] = {
    "requests.tsv": ("", True, [(10, 5, 0, 2, None), (20, 3, 1500, 3, None)], ()),
    "azure-2023.csv": (
        f"azure; {FROM_FILE}",
        True,
        [(4808, 10, 50_000_000, 2, None), (110, 27, 102_000_000, 3, None), (35, 61, 0, 4, None)],
        (),
    ),
    "azure-2024.csv": (
        f"azure; {FROM_FILE}",
        True,
        [(2162, 5, 0, 2, None), (2399, 6, 500_000_000, 3, None)],
        (),
    ),
    "reallm.csv": (f"reallm; {FROM_FILE}", True, [(374, 44, 250_000_000, 2, None), (12, 1, 15 * 10**8, 3, None)], ()),
    "burstgpt.csv": (
        f"burstgpt; {FROM_FILE}",
        True,
        [(472, 18, 5 * 10**9, 2, None), (87, 230, 0, 4, None)],
        ("requests that failed (no output tokens), left out: 2",),
    ),
    "burstgpt-sessions.csv": (
        f"burstgpt; {FROM_FILE}",
        True,
        [(906, 446, 0, 2, None), (36, 29, 51_500_000_000, 3, None)],
        (),
    ),
    "vidur.csv": (
        f"vidur; {FROM_FILE}",
        True,
        [(1000, 20, 0, 2, None), (2000, 30, 123_456_790, 3, None), (7, 8, 10_000, 4, None)],
        (),
    ),
    "vidur-lengths.csv": (f"vidur; {FROM_FILE}", False, [(1000, 20, 0, 2, None), (7, 8, 0, 3, None)], ()),
    "mooncake.jsonl": (
        f"mooncake; {FROM_FILE}",
        True,
        [(1030, 5, 0, 1, None), (1024, 6, 27_500_000, 2, None), (9, 7, 3 * 10**9, 3, None)],
        (),
    ),
    "llmservingsim.jsonl": (
        f"llmservingsim; {FROM_FILE}",
        True,
        [(3, 2, 5, 1, None), (4, 1, 9, 2, 1), (6, 2, 9, 2, 1)],
        (),
    ),
    "sharegpt.json": (
        f"sharegpt; {RATIO}",
        False,
        [(6, 3, 0, 2, None), (1, 1, 0, 13, None)],
        ("conversations without an answer, left out: 2",),
    ),
    "vllm-result.json": (
        f"vllm-result; {FROM_FILE}",
        True,
        [(100, 10, 250_000_000, None, None), (200, 20, 0, None, None)],
        ("requests that failed, left out: 1",),
    ),
    "vllm-custom.jsonl": (
        f"vllm-custom; {RATIO}",
        False,
        [(3, 10, 0, 1, None), (2, 256, 0, 2, None)],
        ("answers whose length the file does not say, 256 tokens as vLLM has it: 1",),
    ),
    "guidellm.json": (
        f"guidellm; {FROM_FILE}",
        True,
        [(256, 128, 5 * 10**8, None, None), (250, 100, 0, None, None), (8, 4, 60 * 10**9, None, None)],
        ("incomplete and errored requests, left out: 1",),
    ),
    "aiperf.jsonl": (
        f"aiperf; {FROM_FILE}",
        True,
        [(1000, 194, 1, 2, None), (500, 20, 0, 3, None)],
        ("requests of the warm-up, failed or cancelled, left out: 2",),
    ),
    "aiperf-inputs.json": (
        f"aiperf-inputs; {RATIO}",
        False,
        [(3, 20, 0, None, 1), (2, 30, 0, None, 1), (1, 5, 0, None, None)],
        (),
    ),
    "genai-perf-inputs.json": (f"aiperf-inputs; {RATIO}", False, [(4, 7, 0, None, None)], ()),
    "genai-perf.json": (
        f"genai-perf; {RATIO}",
        True,
        [(3, 3, 500, None, None), (2, 9, 0, None, None)],
        ("requests without an answer, left out: 1",),
    ),
    "openai-batch.jsonl": (f"openai-batch; {RATIO}", False, [(3, 100, 0, 1, None), (4, 3, 0, 2, None)], ()),
}


def rows(read: ReadWorkload) -> list[Row]:
    return [(r.prompt_tokens, r.output_tokens, r.arrival_ns, r.source_line, r.session) for r in read.requests]


def write(folder: Path, text: str | bytes, name: str = "w") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def skipping() -> Reading:
    return Reading(bad=BadRecords(skip=True))


@pytest.mark.parametrize("name", VALUES)
def test_a_sample_is_known_by_its_content_and_read(name: str) -> None:
    described, timed, expected, notes = VALUES[name]
    read = read_requests(SAMPLES / name)
    assert (read.described, read.timed, rows(read), read.notes) == (described, timed, expected, notes)
    assert read.rows == len(expected)


def test_every_format_has_a_sample() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == {*VALUES, TOKENIZER.name}
    seen = {described.partition(";")[0] or OWN for described, *_ in VALUES.values()}
    assert seen == {name for name in request_formats if request_formats.get(name).recognises} | {OWN}


@pytest.mark.parametrize("name", VALUES)
def test_a_limit_takes_the_first_and_counts_the_rest(name: str) -> None:
    all_rows = rows(read_requests(SAMPLES / name))
    cut = read_requests(SAMPLES / name, 1)
    assert [row[:2] for row in rows(cut)] == [all_rows[0][:2]]
    assert len(cut.requests) == 1 and cut.rows >= len(all_rows)


def test_conversations_may_be_sessions() -> None:
    read = read_requests(SAMPLES / "sharegpt.json", named="sharegpt-sessions")
    assert rows(read) == [(6, 3, 0, 2, 1), (11, 3, 0, 2, 1), (2, 1, 0, 13, 2)]
    assert read.notes == ("conversations without an answer, left out: 2",)
    assert len(read_requests(SAMPLES / "sharegpt.json", 2, named="sharegpt-sessions").requests) == 2


# --- which format a file is of


def test_a_name_overrules_the_content(tmp_path: Path) -> None:
    path = write(tmp_path, "input_toks,1\n")
    with pytest.raises(
        UserError, match=r"line 1: the header lacks TIMESTAMP, ContextTokens, GeneratedTokens; the header"
    ):
        read_requests(path, named="azure")
    with pytest.raises(UserError, match=r"--dataset_format: unknown workload format 'azur'; did you mean azure"):
        read_requests(path, named="azur")


def test_json_in_no_known_format_is_refused(tmp_path: Path) -> None:
    for text in ('{"tokens": 3}', "[1, 2]", "[]", '{"names": {"prompt": 1}}', "{", '[{"prompt": "a"}]', '{"prom'):
        with pytest.raises(
            UserError, match=r"JSON in no format that is known; known: aiperf, .*; name it with --dataset_f"
        ):
            read_requests(write(tmp_path, text))


def test_a_beginning_of_several_formats_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = RequestFormat(lambda beginning: beginning.has("prompt"), lambda path, reading: pytest.fail("is not read"))
    monkeypatch.setitem(request_formats._choices, "another", other)
    path = write(tmp_path, '{"prompt": "a cat"}')
    with pytest.raises(UserError, match=r"may be another or vllm-custom; say which with --dataset_format$"):
        read_requests(path)
    assert read_requests(path, named="vllm-custom").rows == 1


def test_a_beginning_has_the_names_of_the_first_object(tmp_path: Path) -> None:
    cases: dict[str, tuple[set[str], bool]] = {
        '\ufeff\n {"a": {"b": 1}, "c\\n": [{"d": 2}]}\n{"e": 1}': ({"a", "c\n"}, False),
        '[\n {"a": "}\\" {", "b": [1, {"c": 2}]}, {"d": 1}]': ({"a", "b"}, True),
        '[[{"a": 1}]]': (set(), True),
        '{"a": "never ends, \\"b\\": 1': ({"a"}, False),
        '{"a": {"b": 1': ({"a"}, False),
        "1\t2\t3\n": (set(), False),
    }
    for text, (names, in_list) in cases.items():
        found = beginning_of(write(tmp_path, text))
        assert (found.names, found.in_list) == (names, in_list), text
    assert Beginning(b"1\t2\n").is_json is False and beginning_of(write(tmp_path, "[]")).is_json


# --- malformed records

MALFORMED: dict[str, tuple[str, str]] = {
    "mooncake": (
        '{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [4]}',
        r"line 2, hash_ids: 1 ids for 513 tokens; give one for each 512 tokens, 2, or none$",
    ),
    "mooncake ids": (
        '{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [4, -1]}',
        r"line 2, hash_ids\[1\]: -1 is no id of a block; give a whole number from 0 to",
    ),
    "mooncake time": (
        '{"timestamp": "1", "input_length": 5, "output_length": 1}',
        r'line 2, timestamp: "1" is not a number; at least 0$',
    ),
    "vllm-custom": ('{"prompt": ""}', r"line 2, prompt: the prompt has 0 tokens; give 1 to"),
    "vllm-custom output": (
        '{"prompt": "a", "output_tokens": 0}',
        r"line 2, output_tokens: 0 is too small; at least 1$",
    ),
    "vllm-custom type": ('{"prompt": 7}', r"line 2, prompt: 7 is neither a text nor a list; give a text or a list"),
    "vllm-custom part": ('{"prompt": [7, "a"]}', r"line 2, prompt\[0\]: 7 is no message; write its fields by name$"),
    "vllm-custom several": ('{"prompt": ["a", "b"]}', r"line 2, prompt: 2 prompts in one request; write a request for"),
    "openai-batch": (
        '{"custom_id": "a", "body": {"messages": [{"content": "a"}]}}',
        r"line 2, body.max_completion_tokens: max_completion_tokens or max_tokens or max_output_tokens is missing; say",
    ),
    "openai-batch ids": (
        '{"custom_id": "a", "body": {"prompt": [1, -5], "max_tokens": 1}}',
        r"line 2, body.prompt: not all are token ids; give whole numbers from 0 to",
    ),
    "openai-batch body": ('{"custom_id": "a", "body": 3}', r"line 2, body: 3 is no object; write its fields by name$"),
    "aiperf": (
        '{"metadata": {"request_start_ns": 5}, "metrics": {"input_sequence_length": {"value": 3}}}',
        r"line 2, metrics.output_sequence_length: output_sequence_length is missing; write its fields by name$",
    ),
    "any": ("[1]", r"line 2: the record is \[1\], not an object; write its fields by name$"),
    "syntax": ('{"prompt": "a",}', "line 2: not valid JSON"),
}
GOOD = {
    "mooncake": '{"timestamp": 7, "input_length": 513, "output_length": 1, "hash_ids": [4, 5]}',
    "vllm-custom": '{"prompt": "a cat", "output_tokens": 3}',
    "openai-batch": '{"custom_id": "a", "body": {"input": [{"content": ["a"]}, {"text": "b"}], "max_tokens": 4}}',
    "aiperf": '{"metadata": {"request_start_ns": 5}, "metrics": {"input_sequence_length": {"value": 3}, '
    '"output_sequence_length": {"value": 2}}}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_line_is_told_or_skipped(tmp_path: Path, name: str) -> None:
    line, message = MALFORMED[name]
    named = name.partition(" ")[0] if name.partition(" ")[0] in GOOD else "vllm-custom"
    path = write(tmp_path, "\n".join((GOOD[named], line, GOOD[named], line)))
    with pytest.raises(UserError, match=message):
        read_requests(path)
    read = read_requests(path, reading=skipping())
    assert [row[3] for row in rows(read)] == [1, 3]
    assert read.rows == 2
    (note,) = read.notes
    assert note.startswith("2 malformed records are skipped; the first: ") and ", line 2" in note


def change(name: str, how: Callable[[Any], None]) -> str:
    value = json.loads((SAMPLES / name).read_text())
    how(value)
    return json.dumps(value, indent=1)


def first_request(report: Any) -> Any:
    return report["benchmarks"][0]["requests"]["successful"][0]


DOCUMENTS: dict[str, tuple[str, Callable[[Any], None], str, int]] = {
    "vllm": (
        "vllm-result.json",
        lambda value: value["input_lens"].__setitem__(1, 0),
        r"line 13, input_lens\[1\]: 0 is too small; at least 1$",
        1,
    ),
    "guidellm": (
        "guidellm.json",
        lambda value: first_request(value).__setitem__("output_tokens", None),
        r"line \d+, benchmarks\[0\].requests.successful\[0\].output_tokens: output_tokens is missing; at least 1$",
        2,
    ),
    "guidellm time": (
        "guidellm.json",
        lambda value: first_request(value).__setitem__("info", {}),
        r"benchmarks\[0\].requests.successful\[0\].info.timings: timings is missing; write its fields by name$",
        2,
    ),
    "guidellm list": (
        "guidellm.json",
        lambda value: value["benchmarks"][0]["requests"]["successful"].__setitem__(1, 4),
        r"benchmarks\[0\].requests.successful\[1\]: 4 is no object; write its fields by name$",
        2,
    ),
    "inputs": (
        "aiperf-inputs.json",
        lambda value: value["data"][0]["payloads"][1].__delitem__("max_completion_tokens"),
        r"data\[0\].payloads\[1\].max_completion_tokens: .* is missing; say how long the answer is$",
        1,
    ),
    "inputs name": (
        "aiperf-inputs.json",
        lambda value: value["data"].append({}),
        r"line \d+, data\[2\].payloads: payloads or payload is missing; list what is sent$",
        3,
    ),
    "genai-perf": (
        "genai-perf.json",
        lambda value: value["experiments"][0]["requests"][0]["request_inputs"].__setitem__("payload", "[]"),
        r"requests\[0\].request_inputs.payload: the payload is no JSON object; give the request as it was sent$",
        1,
    ),
    "genai-perf inside": (
        "genai-perf.json",
        lambda value: value["experiments"][0]["requests"][0]["request_inputs"].__setitem__("payload", "{}"),
        r"line \d+, experiments\[0\].requests\[0\].request_inputs.payload.messages: messages or prompt or input is",
        1,
    ),
    "genai-perf usage": (
        "genai-perf.json",
        lambda value: value["experiments"][0]["requests"][1]["response_outputs"][0].__setitem__(
            "response", '{"usage": {"completion_tokens": -3}}'
        ),
        r"requests\[1\].response_outputs\[0\].response: the usage has -3 tokens; at most 10{9}$",
        1,
    ),
    "sharegpt": (
        "sharegpt.json",
        lambda value: value[0]["conversations"][0].__setitem__("value", None),
        r"line 2, \[0\].conversations\[0\].value: value is missing; give a text$",
        1,
    ),
    "sharegpt element": (
        "sharegpt.json",
        lambda value: value.insert(1, 7),
        r"line \d+, \[1\]: 7 is no object; write",
        2,
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_malformed_record_of_a_document_is_told_or_skipped(tmp_path: Path, name: str) -> None:
    sample, how, message, left = DOCUMENTS[name]
    path = write(tmp_path, change(sample, how))
    with pytest.raises(UserError, match=message):
        read_requests(path)
    read = read_requests(path, reading=skipping())
    assert len(read.requests) == left
    assert any("a malformed record is skipped: " in note for note in read.notes)
    if read.requests.sessions is not None:
        assert 1 not in read.requests.sessions.number or left > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"completed": 1, "total_input_tokens": 3}',
            r"line 1, input_lens: input_lens is missing; a result has them that was sa",
        ),
        ('{"input_lens": [1], "output_lens": []}', "output_lens: 0 values for 1 requests; give as many as input_lens$"),
        ('{"input_lens": [1], "output_lens": [1], "errors": []}', "errors: 0 values for 1 requests; give as many"),
        ('{"input_lens": [1], "output_lens": [1], "start_times": 5}', "start_times: 5 is no list; give a list$"),
        ('{"input_lens": [1], "output_lens": [0]}', "the workload file holds no requests"),
        ('{"input_lens": [], "output_lens": []}', "the workload file holds no requests"),
        ('{"benchmarks": [{"requests": {}}]}', r"benchmarks\[0\].requests.successful: successful is missing"),
        ('{"benchmarks": []}', "the workload file holds no requests; give at least one$"),
        ('{"experiments": [{}]}', r"experiments\[0\].requests: requests is missing"),
        ('{"data": 4}', "data: 4 is no list; give a list$"),
        ('[{"conversations": []}', "line 1: not valid JSON: no comma after a record; expected ,$"),
        ('[{"conversations": []},\n\n 5 6]', r"line 3.* 5 is no object"),
        ('[{"conversations": []}]\nmore', "line 2: not valid JSON: text after the list's end"),
        ('[{"conversations": []},\n{"a": }]', "line 2: not valid JSON: Expecting value"),
        ('[{"conversations": []},\n' + "[" * 100_000, "line 2: not valid JSON: nests too deep"),
        ('[{"conversations": []},\n' + "9" * 5000 + "]", "line 2: not valid JSON: a number has too many digits"),
        (
            '[{"conversations": [], "conversations": []}]',
            r"line 1, \[0\]: the key \"conversations\" occurs twice; keep",
        ),
        (b'[{"conversations": []},\n"\xff"]', "line 2: the workload file is not UTF-8 text; save it as UTF-8$"),
    ],
)
def test_what_else_is_wrong_with_documents(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_requests(write(tmp_path, text))


def test_a_file_of_nothing_but_malformed_records_says_so(tmp_path: Path) -> None:
    for text, first in (
        ('{"prompt": ""}\n{"prompt": 1}\n', ", line 1, prompt: the prompt has 0"),
        ("1\t0\t0\nx\n", "output_toks: 0 is"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\ny\n", ", line 2, TIMESTAMP: "),
    ):
        with pytest.raises(UserError, match=f"holds no requests: 2 are malformed; the first: .*{first}"):
            read_requests(write(tmp_path, text), reading=skipping())


def test_malformed_rows_of_tables_are_skipped(tmp_path: Path) -> None:
    azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    text = azure + "2024-05-10 00:00:00,1,1\nx,1,1\n2024-05-10 00:00:01,0,1\n2024-05-10 00:00:02,3,3\n"
    read = read_requests(write(tmp_path, text), reading=skipping())
    assert rows(read) == [(1, 1, 0, 2, None), (3, 3, 2 * 10**9, 5, None)]
    assert "2 malformed records are skipped; the first: " in read.notes[0] and ", line 3, TIMESTAMP" in read.notes[0]
    read = read_requests(write(tmp_path, "1\t1\t0\n0\t1\t0\n1 x 3\n5\t6\t7\n"), reading=skipping())
    assert rows(read) == [(1, 1, 0, 1, None), (5, 6, 7, 4, None)]
    assert "2 malformed records" in read.notes[0] and ", line 2, input_toks: 0 is too small" in read.notes[0]


def test_nothing_of_a_malformed_session_stays(tmp_path: Path) -> None:
    turn = {"input_toks": 2, "output_toks": 1, "input_tok_ids": [1, 2]}
    sessions = [[turn, {}], [turn, {**turn, "input_tok_ids": [3, 4]}], [{}]]
    lines = [json.dumps({"arrival_time_ns": 0, "sub_requests": turns}) for turns in sessions]
    read = read_requests(write(tmp_path, "\n".join(lines)), reading=skipping())
    assert [row[3:] for row in rows(read)] == [(2, 1), (2, 1)]
    assert [list(one.prompt_token_ids) for one in read.requests] == [[1, 2], [3, 4]]


# --- texts as tokens


def test_texts_are_counted_at_a_ratio() -> None:
    read = read_requests(SAMPLES / "vllm-custom.jsonl", reading=Reading(texts=TextTokens(None, 2.5)))
    assert [row[0] for row in rows(read)] == [5, 3]
    assert read.described == "vllm-custom; token counts estimated at 2.5 characters a token"
    assert TextTokens(None, 3.0).of("").tokens == 0


@pytest.mark.parametrize("tokenizer", [TOKENIZER, SAMPLES])
def test_texts_are_counted_by_a_tokenizer_and_have_ids(tokenizer: Path) -> None:
    pytest.importorskip("tokenizers", reason="an extra: pip install 'orrery-sim[tokenizer]'")
    read = read_requests(
        SAMPLES / "sharegpt.json", named="sharegpt-sessions", reading=Reading(texts=TextTokens(tokenizer))
    )
    assert read.described == f"sharegpt-sessions; token counts by the tokenizer {tokenizer}"
    assert [list(one.prompt_token_ids) for one in read.requests] == [
        [1, 2, 3, 4, 1, 5],
        [1, 2, 3, 4, 1, 5, 4, 1, 5, 1, 6],
        [3, 1],
    ]
    assert [list(one.output_token_ids) for one in read.requests] == [[4, 1, 5], [1, 6, 7], [2]]
    assert all(one.prompt_tokens == len(one.prompt_token_ids) for one in read.requests)


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="an extra: pip install 'orrery-sim[tokenizer]'")
    for path, message in (
        (tmp_path, "--tokenizer: no tokenizer.json in the folder; name a tokenizer.json, or a folder that has one; no"),
        (tmp_path / "none", "--tokenizer: the tokenizer file does not exist; "),
        (write(tmp_path, "{}", "t.json"), "t.json, --tokenizer: not a tokenizer file: "),
    ):
        with pytest.raises(UserError, match=message):
            read_requests(SAMPLES / "sharegpt.json", reading=Reading(texts=TextTokens(path)))


def test_a_run_says_what_it_took() -> None:
    def opened(**given: Any) -> Any:
        return open_source(WorkloadSettings(**given), lambda request: None, lambda longest: True)

    path = SAMPLES / "sharegpt.json"
    source = opened(dataset=path, dataset_format="sharegpt-sessions", chars_per_token=2.0)
    said = "sharegpt-sessions; token counts estimated at 2 characters a token"
    assert source.described == f"3 requests of {path} in 2 sessions ({said})"
    assert source.notes == ("conversations without an answer, left out: 2", UNTIMED)
    assert opened(dataset=SAMPLES / "azure-2023.csv").notes == ()
