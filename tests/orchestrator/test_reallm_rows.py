"""ReaLLM's rows: its four models on its parallelisms, with code and conversation, from one system file to the results.

The work of a batch is held against formulas worked out of the models' published sizes, those of reallm's own operators
where they are right: every matrix that a token meets, 2 FLOPs a weight, and attention over what is before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from orchestrator.reallm.importing import Given, Imported, import_system
from orchestrator.run_files import main
from orchestrator.settings.specification import from_flags
from orchestrator.simulation import prepare
from trace_gen.batch_shape import BatchShape
from trace_gen.trace import CommType, OperatorClass, Trace

SYSTEM = """\
model: [llama70b, llama405b, deepseekv2, deepseekv3]
system:
  device: H100
  num_devices: [16, 32]
  io_algo: multishot
  attention_parallelism: [tp16, tp8_pp2, tp16_cp2, tp8_pp2_cp2, ep16, ep4_tp2_pp2, ep8_pp2_cp2]
  batching_algo: mixed-sarathi
  prefill_chunk: 512
system_sim: {tasks: [code, conv], request_rates: [2], end_reqs: 2}
trace_gen: {end_time: 10}
"""
CODE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,1200,4\n2023-11-16 18:17:04.03,700,9\n"
CONVERSATION = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,24\n2023-11-16 18:15:50.95,396,12\n"
DENSE, MIXTURES = ("llama70b", "llama405b"), ("deepseekv2", "deepseekv3")
SHARED, SPREAD = ("tp16", "tp8_pp2", "tp16_cp2", "tp8_pp2_cp2"), ("ep16", "ep4_tp2_pp2", "ep8_pp2_cp2")
ROWS = [(model, text) for model in DENSE for text in SHARED]
ROWS += [(model, text) for model in MIXTURES for text in (*SHARED, *SPREAD)]
TENSOR = {text: 16 if "16" in text else 8 for text in (*SHARED, *SPREAD)}
"""Ranks that share attention by heads."""

PROMPT, CONTEXTS = 64, tuple(range(127, 127 + 16 * 32, 32))
TOKENS = PROMPT + len(CONTEXTS)
SEEN = PROMPT * (PROMPT + 1) // 2
"""Pairs of a token of the prompt and one that it sees, itself included."""
LOOKED_AT = sum(CONTEXTS) + len(CONTEXTS)


@dataclass(frozen=True)
class Llama:
    """Sizes of a grouped-query decoder (Llama 3's paper, table 3)."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int = 128256
    head: int = 128

    def matrices(self, tensor: int) -> int:
        """FLOPs of all matrices: keys and values beyond their number of heads are computed by several ranks."""
        kv_heads = max(self.kv_heads, tensor)
        attention = self.hidden * self.head * (2 * self.heads + 2 * kv_heads)
        return 2 * TOKENS * self.layers * (attention + 3 * self.hidden * self.inner) + self.logits()

    def logits(self) -> int:
        return 2 * len(CONTEXTS) * self.hidden * self.vocabulary

    def attention(self, context: int) -> int:
        return 4 * self.layers * self.heads * self.head * (SEEN + LOOKED_AT)


@dataclass(frozen=True)
class DeepSeek:
    """Sizes of a mixture with latent attention (DeepSeek-V2's and V3's papers, section on hyper-parameters).

    `corrected`: a bias is added to every score, which balances experts without a loss (V3).
    """

    layers: int
    hidden: int
    dense_layers: int
    dense_inner: int
    inner: int
    experts: int
    chosen: int
    shared: int
    vocabulary: int
    corrected: bool
    query: int = 1536
    latent: int = 512
    heads: int = 128
    nope: int = 128
    rope: int = 64
    value: int = 128

    def matrices(self, tensor: int) -> int:
        """FLOPs of all matrices: what is compressed, and scores of experts, are computed by every rank of a stage."""
        down = self.hidden * (self.query + self.latent + self.rope) * tensor
        up = self.heads * (self.query * (self.nope + self.rope) + self.latent * (self.nope + self.value))
        attention = down + up + self.heads * self.value * self.hidden
        sparse = 3 * self.hidden * self.inner * (self.chosen + self.shared) + self.hidden * self.experts * tensor
        blocks = self.dense_layers * 3 * self.hidden * self.dense_inner
        blocks += (self.layers - self.dense_layers) * sparse
        corrections = TOKENS * (self.layers - self.dense_layers) * self.experts * tensor * self.corrected
        return 2 * TOKENS * (self.layers * attention + blocks) + corrections + self.logits()

    def logits(self) -> int:
        return 2 * len(CONTEXTS) * self.hidden * self.vocabulary

    def attention(self, context: int) -> int:
        """A prompt's keys and values are expanded, those of answers stay latent.

        Context-parallel ranks pass latent vectors on, and each expands those of the others for its own queries.
        """
        expanded = 2 * self.heads * (self.nope + self.rope + self.value) * SEEN
        absorbed = 2 * self.heads * (self.latent + self.rope + self.latent) * LOOKED_AT
        others = 2 * self.heads * self.latent * (self.nope + self.value) * PROMPT * (context - 1)
        return self.layers * (expanded + others + absorbed)


SIZES: dict[str, Llama | DeepSeek] = {
    "llama70b": Llama(80, 8192, 28672, 64, 8),
    "llama405b": Llama(126, 16384, 53248, 128, 8),
    "deepseekv2": DeepSeek(60, 5120, 1, 12288, 1536, 160, 6, 2, 102400, False),
    "deepseekv3": DeepSeek(61, 7168, 3, 18432, 2048, 256, 8, 1, 129280, True),
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("rows")
    for name, text in (("system.yaml", SYSTEM), ("code.csv", CODE), ("conv.csv", CONVERSATION)):
        (folder / name).write_text(text)
    lengths = {task: folder / f"{task}.csv" for task in ("code", "conv")}
    return import_system(Given(folder / "system.yaml", folder / "runs", lengths))


def traced(imported: Imported, model: str, text: str) -> tuple[Trace, np.ndarray]:
    """Return the trace of a prompt's first tokens and some answers, and on how many ranks each row runs."""
    path = imported.run_files[0].parent / f"{model}-{text}-mixed-sarathi-chunk512-code-rate2.yaml"
    generator = prepare(from_flags(["--settings", str(path)])).deployments[0].generator
    new = np.array([PROMPT, *[1] * len(CONTEXTS)])
    context = np.array([0, *CONTEXTS])
    requests = np.arange(len(new))
    samples = np.array([0, *[1] * len(CONTEXTS)])
    trace = generator.generate([BatchShape(requests, new, context, samples)])
    return trace, np.array([len(trace.rank_sets[place]) for place in trace.rank_set])


def test_every_row_is_there(imported: Imported) -> None:
    ends = [f"-mixed-sarathi-chunk512-{task}-rate2" for task in ("code", "conv")]
    assert {path.stem for path in imported.run_files} == {
        f"{model}-{text}{end}" for model, text in ROWS for end in ends
    }
    assert set(imported.left_out) == {f"{model}-{text}-mixed-sarathi-chunk512" for model in DENSE for text in SPREAD}


def test_all_of_them_run(imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """All requests are served to their end, code and conversation, and every run communicates."""
    assert main([str(path) for path in imported.run_files]) == 0
    rows = {cells[0]: cells[1:] for cells in map(str.split, capsys.readouterr().out.splitlines()[3:])}
    assert len(rows) == 2 * len(ROWS)
    for path in imported.run_files:
        requests, *figures, share = rows[path.stem]
        assert requests == "2" and "-" not in figures and 0.5 < float(share) < 50, path.stem
        table = Path(path.parent / "results" / f"{path.stem}.csv").read_text().splitlines()
        assert len(table) == 3


@pytest.mark.parametrize(("model", "text"), ROWS)
def test_work_is_that_of_the_papers(imported: Imported, model: str, text: str) -> None:
    trace, ranks = traced(imported, model, text)
    work = Counter[int]()
    for kind, flops in zip(trace.operator_class.tolist(), (trace.flops[0] * ranks).tolist(), strict=True):
        work[kind] += flops
    sizes = SIZES[model]
    assert work[OperatorClass.GEMM] + work[OperatorClass.GROUPED_GEMM] == sizes.matrices(TENSOR[text])
    assert work[OperatorClass.ATTENTION] == pytest.approx(sizes.attention(2 if "cp2" in text else 1), rel=1e-9)


@pytest.mark.parametrize(("model", "text"), ROWS)
def test_communication_is_there(imported: Imported, model: str, text: str) -> None:
    """What each axis asks for, layer by layer; the vocabulary is divided as well, and stages send to each other."""
    trace, _ = traced(imported, model, text)
    sizes = SIZES[model]
    sparse = 0 if isinstance(sizes, Llama) else sizes.layers - sizes.dense_layers
    context = sizes.layers if "cp2" in text else 0
    spread = sparse if text in SPREAD else 0
    expected = {
        "ALLREDUCE": 1 + 2 * sizes.layers,  # the embedding; of every layer attention, and the MLP or shared experts
        "ALLTOALL": 2 * spread,  # tokens to their experts and back
        "PERMUTE": context,  # a prompt's keys and values, from rank to rank
        "ALLGATHER": 1 + spread + 2 * context,  # logits; tokens whole again; queries of answers, sums of their weights
        "REDUCESCATTER": context,  # outputs of answers
        "NONE": trace.rows - (2 + 2 * sizes.layers + 3 * spread + 4 * context),
    }
    assert Counter(CommType(kind).name for kind in trace.comm_type.tolist()) == Counter(expected)
    assert set(trace.stage.tolist()) == ({0, 1} if "pp2" in text else {0})
