"""The files that the table names: good ones, and the same with one thing wrong, in a folder a kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.small_profile import bundle, small_model

from orchestrator.kernels.deployments import read_deployments
from orchestrator.kernels.filling import fill
from orchestrator.kernels.planning import plan_tables
from trace_gen.kernels.shapes import Limits

ROOT = Path(__file__).parents[2]
HEADER = "input_toks\toutput_toks\tarrival_time_ns\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
REALLM = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
PROFILES = {
    "good": ("meta.yaml", "", ""),
    "column": ("tp1/dense.csv", "tokens", "token"),
    "nan": ("tp1/attention.csv", "0,0,1,16,10.508", "0,0,1,16,nan"),
    "negative": ("tp1/dense.csv", "embedding,8,", "embedding,8,-"),
    "twice": ("tp1/dense.csv", "embedding,8,", "embedding,1,"),
    "order": ("tp1/per_sequence.csv", "lm_head,4,", "lm_head,40,"),
    "device": ("meta.yaml", "RTX4090", "RTX4095"),
    "variant": ("meta.yaml", "bf16", "fp8"),
    "meta": ("meta.yaml", '"RTX4090"', "5"),
}
"""Measured tables, each with one text in one file changed."""
KERNELS = {
    "good": ("kernels.yaml", "", ""),
    "layout": ("kernels.yaml", "layout: 1", "layout: 2"),
    "device": ("kernels.yaml", 'hardware: "RTX4090"', 'hardware: "RTX4095"'),
    "model": ("kernels.yaml", 'model: "small"', 'model: "large"'),
    "bits": ("kernels.yaml", "bits: [16, 16, 16]", "bits: [16, 16]"),
    "words": ("kernels.yaml", 'vocabulary: "fused"', 'vocabulary: "fuzed"'),
    "errors": ("kernels.yaml", "errors: {", 'errors: {"gemms": 3, '),
    "limits": ("kernels.yaml", '"tokens": 8', '"token": 8'),
    "unknown": ("kernels.yaml", "layout: 1", "layout: 1\nsource: 3"),
    "column": ("tp1/operators.csv", "weight_bytes", "weights"),
    "class": ("tp1/operators.csv", "elementwise", "elementary"),
    "width": ("tp1/operators.csv", "half", "whole"),
    "nan": ("tp1/operators.csv", "half,", "half,nan"),
    "twice": ("tp1/operators.csv", ",1,", ",2,"),
    "shape": ("tp1/attention.csv", "attention,8,", "attention,eight,"),
    "kernel": ("tp1/operators.csv", "qkv_proj,", "qkv_prof,"),
}
"""Kernel tables, likewise."""
Files = Iterator[tuple[str, str | bytes]]

WORKLOADS: dict[str, str | bytes] = {
    "late.tsv": "10\t5\t2000000000\n",
    "jsonlpriority.jsonl": '{"input_toks": 1, "output_toks": 1, "arrival_time_ns": 0, "priority": 1.5}\n',
    "once.tsv": "10\t5\t7\n20\t3\t7\n",
    "good.tsv": HEADER + "10\t5\t0\n20\t3\t10\n30\t2\t20\n",
    "empty.tsv": "",
    "header.tsv": HEADER,
    "blank.tsv": "\n\n\n",
    "two.tsv": "10\t5\n",
    "four.tsv": "10\t5\t0\t9\n",
    "five.tsv": "10\t5\t0\t9\t9\n",
    "fourth.tsv": "10\t5\t0\t9\n10\t5\t0\n",
    "word.tsv": "10\tfive\t0\n",
    "float.tsv": "10\t5.5\t0\n",
    "neg.tsv": "10\t5\t-1\n",
    "zero.tsv": "0\t5\t0\n",
    "zeroout.tsv": "5\t0\t0\n",
    "under.tsv": "1_0\t5\t0\n",
    "wide.tsv": "\uff11\uff10\t5\t0\n",
    "arab.tsv": "\u0661\u0660\t5\t0\n",
    "hex.tsv": "0x10\t5\t0\n",
    "exp.tsv": "1e2\t5\t0\n",
    "nan.tsv": "nan\t5\t0\n",
    "huge.tsv": "10\t5\t" + "9" * 30 + "\n",
    "digits.tsv": "1" * 5000 + "\t5\t0\n",
    "manytok.tsv": "1000000001\t5\t0\n",
    "comma.csv": "10,5,0\n",
    "utf16.tsv": "10\t5\t0\n".encode("utf-16"),
    "bin.tsv": bytes(range(256)) * 3,
    "nul.tsv": "10\t5\t0\x00\n",
    "longline.tsv": "1" * 100_000,
    "quoted.tsv": '"10"\t"5"\t"0"\n',
    "jsonl.jsonl": '{"prompt": 10}\n',
    "no.jsonl": '{"tokens": 10}\n',
    "empty_prompt.jsonl": '{"prompt": "a"}\n{"prompt": ""}\n',
    "mooncake.jsonl": '{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1]}\n',
    "batch.jsonl": '{"custom_id": "a", "body": {"messages": [{"content": "hello"}]}}\n',
    "aiperf.jsonl": '{"metadata": {"request_start_ns": -1}, "metrics": {}}\n',
    "sharegpt.json": '[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": 3}]}]',
    "cut.json": '[{"conversations": [\n',
    "unlike.json": '{"input_lens": [5, 6], "output_lens": [1]}',
    "totals.json": '{"completed": 5, "total_input_tokens": 9}',
    "guidellm.json": '{"benchmarks": [\n{"requests": {"successful": [\n{"prompt_tokens": 0}]}}]}',
    "inputs.json": '{"data": [{"payload": []}, {}]}',
    "genai.json": '{"experiments": [{"requests": 3}]}',
    "burst.csv": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,0,9,9,API log\n",
    "failed.csv": "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,3,0\n",
    "vidur.csv": "arrived_at,num_prefill_tokens,num_decode_tokens\n1.0,5,x\n",
    "headeronly2.tsv": "10\t5\t0\n" + HEADER,
    "badheader.tsv": "in\tout\tarr\n1\t2\t3\n",
    "long.tsv": "10\t5\t0\n900000\t5\t0\n",
    "ansi.tsv": "10\t\x1b[31m5\t0\n",
    "packed.tsv": gzip.compress(b"10\t5\t0\n"),
    "semicolons.tsv": "input_toks;output_toks;arrival_time_ns\n1;2;3\n",
    "crlf.tsv": "10\t5\t0\r\n20\tx\t1\r\n",
    "seconds.tsv": "10\t5\t0.25\n",
    "good.jsonl": '{"arrival_time_ns": 0, "sub_requests": [{"input_toks": 9, "output_toks": 2}]}\n',
    "brace.jsonl": "{\n",
    "twice.jsonl": '{"input_toks": 9, "input_toks": 9}\n',
    "unknown.jsonl": '{"input_toks": 9, "output_toks": 2, "arrival_ns": 0}\n',
    "ids.jsonl": '{"input_toks": 9, "output_toks": 2, "arrival_time_ns": 0, "input_tok_ids": [1, 2]}\n',
    "turns.jsonl": '{"arrival_time_ns": 0, "sub_requests": [{"input_toks": 9}]}\n',
    "noturns.jsonl": '{"arrival_time_ns": 0, "sub_requests": []}\n',
    "longturn.jsonl": '{"arrival_time_ns": 0, "sub_requests": [{"input_toks": 900000, "output_toks": 2}]}\n',
    "azure.csv": AZURE + "2023-11-16 18:15:46.68,20,3\n2023-11-16 18:15:47,10,2\n",
    "azure-time.csv": AZURE + "18:15:46,20,3\n",
    "azure-zero.csv": AZURE + "2023-11-16 18:15:46.68,20,0\n",
    "azure-header.csv": AZURE,
    "azure-short.csv": AZURE + "2023-11-16 18:15:46.68,20\n",
    "reallm.csv": REALLM + "0,2,0,0.5,1,20,3\n",
    "reallm-batch.csv": REALLM + "0,2,0,0.5,1,20,3\n1,2,0,0.5,4,20,3\n",
    "reallm-type.csv": REALLM + "0,1,0,0.5,1,20,3\n",
    "reallm-time.csv": REALLM + "0,2,0,soon,1,20,3\n",
}

RECORDINGS: dict[str, str | bytes] = {
    "x/columns.csv": "layer,expert\n0,1\n",
    "x/layer.csv": "layer,expert,tokens\n32,0,1\n",
    "x/expert.csv": "layer,expert,tokens\n0,8,1\n",
    "x/twice.csv": "layer,expert,tokens\n0,1,1\n0,1,1\n",
    "x/less.csv": "layer,expert,tokens\n0,1,1\n0,2,1\n",
    "x/nul.csv": b"layer,expert,tokens\n0,1,1\n\x00",
    "x/bin.csv": bytes(range(256)),
}

MODEL = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8,
    "num_key_value_heads": 2, "num_hidden_layers": 4, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip
COMPRESSED = {
    "quant_method": "compressed-tensors", "format": "float-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
        "num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128, 128],
    }}},
}  # fmt: skip
GPT = {**dict.fromkeys(MODEL), "model_type": "gpt2", "vocab_size": 1000, "n_embd": 512, "n_layer": 2, "n_positions": 99}
MODELS: dict[str, dict[str, Any]] = {
    "good": {},
    "gptj": {"model_type": "gptj"},
    "bert": {"model_type": "bert"},
    "notype": {"model_type": None},
    "typenum": {"model_type": 5},
    "nohidden": {"hidden_size": None},
    "hidden0": {"hidden_size": 0},
    "hidden1": {"hidden_size": 1},
    "hiddenneg": {"hidden_size": -512},
    "hiddenf": {"hidden_size": 512.5},
    "hiddens": {"hidden_size": "512"},
    "hiddenbig": {"hidden_size": 10**400},
    "hiddennull": {"hidden_size": None},
    "hiddentrue": {"hidden_size": True},
    "heads7": {"num_attention_heads": 7},
    "kv3": {"num_key_value_heads": 3},
    "layers0": {"num_hidden_layers": 0},
    "layersbig": {"num_hidden_layers": 10**9},
    "vocab0": {"vocab_size": 0},
    "pos0": {"max_position_embeddings": 0},
    "top9": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 9},
    "window0": {"model_type": "mistral", "sliding_window": 0},
    "tie": {"tie_word_embeddings": "no"},
    "quant": {"quantization_config": {"quant_method": "gguf"}},
    "quantbits": {"quantization_config": {"quant_method": "awq", "bits": 3}},
    "quantlist": {"quantization_config": [1]},
    "quantblock": {"quantization_config": COMPRESSED},
    "gptheads": {**GPT, "n_head": 7},
}
FAMILIES = (
    "gpt2",
    "llama",
    "mistral",
    "mixtral",
    "opt",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "falcon",
    "chatglm",
    "qwen",
    "gemma3",
)
MODEL_TEXTS: dict[str, str | bytes] = {
    "dup": '{"model_type":"llama","hidden_size":512,"hidden_size":1024}',
    "list": "[1,2]",
    "trunc": '{"model_type":',
    "nan": json.dumps(MODEL).replace("512", "NaN"),
    "inf": json.dumps(MODEL).replace("512", "Infinity"),
    "deep": "[" * 100_000,
    "bigint": json.dumps(MODEL).replace("512", "9" * 5000),
    "comment": "// a comment\n" + json.dumps(MODEL),
    **{f"bare-{family}": json.dumps({"model_type": family}) for family in FAMILIES},
    "latin": b'{"model_type":"ll\xe9ma"}',
    "nulbyte": b"\x00" * 10,
    "empty": "",
}

HARDWARE_FIELDS = (
    "device",
    "memory_gb",
    "memory_gib",
    "memory_bandwidth_gb_s",
    "peak_tflops",
    "efficiency",
    "compute_units",
)
HARDWARE: dict[str, dict[str, Any]] = {
    "fabric": {"fabric": "h1000"},
    "nobw": {"memory_bandwidth_gb_s": None},
    "bw0": {"memory_bandwidth_gb_s": 0},
    "bwneg": {"memory_bandwidth_gb_s": -3},
    "bwstr": {"memory_bandwidth_gb_s": "fast"},
    "two": {"memory_gib": 80},
    "neither": {"memory_gb": None},
    "eff7": {"efficiency": {"gemm": {"compute": 7}}},
    "effx": {"efficiency": {"gem": {"compute": 0.7}}},
    "effs": {"efficiency": {"attention_decode_ungrouped": {"serial_ns": -1}}},
    "clas": {"class": "hoper"},
    "peakx": {"peak_tflops": {"fp17": 5}},
    "peak0": {"peak_tflops": {"bf16": 0}},
    "peaknone": {"peak_tflops": {"fp32": 5}},
    "unknown": {"clock": 5},
    "link0": {"link_gb_s": 0},
    "units0": {"compute_units": 0},
    "bare": dict.fromkeys(HARDWARE_FIELDS),
    "unitsf": {"compute_units": 1.5},
    "peakbig": {"peak_tflops": {"bf16": 1e300}},
    "bwbig": {"memory_bandwidth_gb_s": 1e30},
    "shows": {"driver_memory_gib": 1000},
    "efflist": {"efficiency": [1]},
}

TEMPLATE: dict[str, Any] = {
    "interconnect": {
        "link": {"bandwidth_per_direction_byte": 25e9, "latency_second": 9e-6}, "link_count_per_device": 12,
    },
    "device": {
        "frequency_Hz": 1e9,
        "compute_chiplet": {"core_count": 100, "core": {
            "sublane_count": 4,
            "systolic_array": {"array_width": 16, "array_height": 16, "data_type": "fp16", "mac_per_cycle": 1},
        }},
        "io": {
            "global_buffer_MB": 40, "global_buffer_bandwidth_per_cycle_byte": 5120, "memory_channel_active_count": 5,
            "pin_count_per_channel": 1024, "bandwidth_per_pin_bit": 3e9,
        },
        "memory": {"total_capacity_GB": 80},
        "compute_chiplet_count": 1,
    },
}  # fmt: skip
TEMPLATES: dict[str, dict[str, Any]] = {
    "good": {},
    "nodevice": {"device": None},
    "devicetext": {"device": "an accelerator"},
    "bare": {"device": {}},
    "ring": {"interconnect": TEMPLATE["interconnect"] | {"topology": "RING"}},
    "links0": {"interconnect": TEMPLATE["interconnect"] | {"link_count_per_device": 0}},
    "hz": {"device": TEMPLATE["device"] | {"frequency_Hz": "1 GHz"}},
    "unknown": {"device": TEMPLATE["device"] | {"memories": {}}},
}

SYSTEM_FILE = {
    "model": "llama70b",
    "system": {"device": "H100", "num_devices": 4, "attention_parallelism": "tp4"},
    "system_sim": {"tasks": ["code"], "request_rates": [1], "end_reqs": 1},
}
SYSTEM_FILES: dict[str, dict[str, Any]] = {
    "good": {},
    "model": {"model": "llama7b"},
    "nomodel": {"model": None},
    "nosystem": {"system": None},
    "systemlist": {"system": ["H100"]},
    "bare": {"system": {}},
    "many": {"system": SYSTEM_FILE["system"] | {"attention_parallelism": "tp2_tp2"}},
    "devices": {"system": SYSTEM_FILE["system"] | {"num_devices": 8}},
    "square": {"system": SYSTEM_FILE["system"] | {
        "num_devices": 8, "attention_parallelism": "tp8", "io_algo": "2d_ring"}},
    "experts": {"system": SYSTEM_FILE["system"] | {"attention_parallelism": "ep4"}},
    "small": {"model": "llama405b"},
    "free": {"system": SYSTEM_FILE["system"] | {"io_algo": ""}},
    "prefetch": {"system": SYSTEM_FILE["system"] | {"batching_algo": "prefetch-thread"}},
    "device": {"system": SYSTEM_FILE["system"] | {"device": "H1000"}},
    "hetero": {"heterogeneous": True},
    "trace": {"system_sim": {"traces": "none.csv"}},
    "chat": {"system_sim": {"tasks": ["chat"]}},
    "conv": {"system_sim": {"tasks": ["conv"]}},
    "late": {"trace_gen": {"end_time": 1e-6}},
    "unknown": {"kernels": {}},
}  # fmt: skip

NETWORK = {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50.0], "latency": [500.0]}
NETWORKS: dict[str, dict[str, Any]] = {
    "good": {},
    "n8": {"npus_count": [8]},
    "rang": {"topology": ["Rang"]},
    "notop": {"topology": None},
    "len": {"bandwidth": [50.0, 50.0]},
    "bw0": {"bandwidth": [0]},
    "bwneg": {"bandwidth": [-5]},
    "bwtiny": {"bandwidth": [1e-320]},
    "npus1": {"npus_count": [1]},
    "npusf": {"npus_count": [4.5]},
    "npusneg": {"npus_count": [-4]},
    "npus0": {"npus_count": [0]},
    "latneg": {"latency": [-1]},
    "scalar": {"npus_count": 4},
    "bare": dict.fromkeys(NETWORK),
}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""427 bytes that unfold to 9^9 values."""
NETWORK_TEXTS: dict[str, str | bytes] = {
    "bwnan": "topology: [Ring]\nnpus_count: [4]\nbandwidth: [.nan]\nlatency: [1]\n",
    "broken": "topology: [Ring\n",
    "dup": "topology: [Ring]\ntopology: [Switch]\nnpus_count: [4]\nbandwidth: [50]\nlatency: [1]\n",
    "list": "- a\n- b\n",
    "empty": "",
    "date": "2020-01-01: 5\n",
    "tab": "topology:\t[Ring]\n\tx: 1\n",
    "obj": "!!python/object:os.system {}\n",
    "bomb": BOMB,
}

SYSTEM = {
    "scheduling-policy": "LIFO", "collective-optimization": "localBWAware", "endpoint-delay": 10,
    "preferred-dataset-splits": 4, "roofline-enabled": 1,
    **{f"{name}-implementation": ["ring"] for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")},
}  # fmt: skip
SYSTEMS: dict[str, dict[str, Any]] = {
    "good": {},
    "nopolicy": {"scheduling-policy": None},
    "policy": {"scheduling-policy": "SJF"},
    "track": {"track-local-mem": 1},
    "splits": {"preferred-dataset-splits": 2147483647},
    "splits0": {"preferred-dataset-splits": 0},
    "delay": {"endpoint-delay": 10**12},
    "delayneg": {"endpoint-delay": -1},
    "impl": {"all-reduce-implementation": ["rings"]},
    "impltwo": {"all-reduce-implementation": ["ring", "ring"]},
    "implnone": {"all-reduce-implementation": None},
    "bw": {"local-mem-bw": 0.5},
    "replay": {"replay-only": 1},
    "string": {"endpoint-delay": "ten"},
    "peakneg": {"peak-perf": -5},
    "least": {"preferred-dataset-splits": 1, "local-mem-bw": 1, "endpoint-delay": 0},
    "most": {"endpoint-delay": 10**9},
    "bare": dict.fromkeys(SYSTEM),
}
SYSTEM_TEXTS: dict[str, str | bytes] = {
    "list": "[]",
    "broken": "{,}",
    "dup": '{"scheduling-policy":"LIFO","scheduling-policy":"FIFO"}',
}

MEMORY = {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 0, "remote-mem-bw": 512}
MEMORIES: dict[str, dict[str, Any]] = {
    "good": {},
    "type": {"memory-type": "PER_CHIP"},
    "notype": {"memory-type": None},
    "bwneg": {"remote-mem-bw": -5},
    "bwbig": {"remote-mem-bw": 2**70},
    "latbig": {"remote-mem-latency": 10**15},
    "nodes": {"memory-type": "PER_NODE_MEMORY_EXPANSION"},
    "str": {"remote-mem-bw": "fast"},
    "bare": dict.fromkeys(MEMORY),
    "barenodes": {**dict.fromkeys(MEMORY), "memory-type": "PER_NODE_MEMORY_EXPANSION"},
}

_PAIR = "scheduling: vllm\nmodel_name: gpt2\nengines:\n"
RUN_FILES: dict[str, str | bytes] = {
    "unknown.yaml": "npu_nmu: 4\n",
    "type.yaml": "npu_num: four\n",
    "bool.yaml": "gen: maybe\n",
    "yes.yaml": "gen: yes\n",
    "list.yaml": "- a\n",
    "nested.yaml": "model:\n  model_name: gpt2\n",
    "dup.yaml": "npu_num: 2\nnpu_num: 4\n",
    "unread.yaml": "max_num_seqs: 4\n",
    "broken.yaml": "npu_num: [\n",
    "engines.yaml": "engines: 4\n",
    "engines0.yaml": "engines: []\n",
    "enginesx.yaml": "engines:\n  - npu_nmu: 4\n",
    "enginesw.yaml": "engines:\n  - workload: 4\n",
    "float.yaml": "npu_num: 2.0\n",
    "choice.yaml": "scheduling: orka\n",
    "nan.json": '{"npu_mem": NaN}',
    "inf.yaml": "npu_mem: .inf\n",
    "settings.yaml": "settings: x.yaml\n",
    "under.yaml": "req_num: 1_000\n",
    "oct.yaml": "req_num: 010\n",
    "date.yaml": "model_name: 2020-01-01\n",
    "both.yaml": "fp: 8\ndtype: float32\n",
    "empty.yaml": "",
    "good.yaml": "npu-num: 2\n",
    "flag.yaml": "--npu_num: 2\n",
    "conflict.json": '{"npu_num": 4, "npu_group": 3}',
    "bombs.yaml": BOMB,
    "deep.json": "[" * 200_000,
    "utf16.yaml": "npu_num: 2\n".encode("utf-16"),
    "dashes.yaml": "--npu-num: 2\n",
    "inside.yaml": "scheduling:\n  vllm:\n    max_num_seqs: 4\n",
    "plain.txt": "npu_num: 2\n",
    "engineshw.yaml": "engines:\n  - {}\n  - hardware: H1000\n",
    "enginesmem.yaml": "engines:\n  - {}\n  - npu_mem: 10\n",
    "enginesnet.yaml": "npu_num: 4\nengines:\n  - {}\n  - network: n/n8.yml\n",
    "enginesmany.yaml": "engines:\n  - instances: 5000\n",
    "enginesread.yaml": "engines:\n  - scheduling: vllm\n  - max_num_seqs: 4\n",
    "equals.yaml": "npu_num = 2\n",
    "rolesorca.yaml": _PAIR + "  - {role: prefill}\n  - {role: decode, scheduling: orca}\n",
    "roles33.yaml": _PAIR + "  - {role: prefill, vllm_version: '0.33'}\n  - {role: decode}\n",
    "rolesmodels.yaml": _PAIR + "  - {role: prefill}\n  - {role: decode, model_name: gpt2-xl}\n",
    "rolesblocks.yaml": _PAIR + "  - {role: prefill, block_size: 16}\n  - {role: decode, block_size: 24}\n",
    "rolestensor.yaml": _PAIR + "  - {role: prefill, tensor_parallel_size: 3}\n  - {role: decode, npu_num: 2}\n",
    "roleskv.yaml": _PAIR + "  - {role: prefill, kv_cache_dtype: fp8}\n  - {role: decode}\n",
    "tiergroup.yaml": "kv_tier: host\nkv_tier_group: node\nengines:\n  - npu_num: 1\n  - npu_num: 2\n",
    "tierrole.yaml": _PAIR + "  - {role: prefill, kv_tier: host}\n  - {role: decode}\n",
    "enginesrun.yaml": "engines:\n  - npu_num: 2\n    req_num: 3\n",
    "endless.yaml": "req_num: 4294967296\n",
    "mixdataset.yaml": "dataset: good.tsv\nworkload:\n  mixture: [{share: 1}, {share: 2}]\n",
    "mixshare.yaml": "workload:\n  mixture:\n  - {share: 1}\n  - {priority: 2}\n",
    "mixtwice.yaml": "workload:\n  mixture: [{priority: 1}, {priority: 2}]\nmixture: [{priority: 1}, {priority: 2}]\n",
    "mixname.yaml": "workload:\n  mixture:\n  - {share: 1}\n  - {share: 1, bursstiness: 2}\n",
    "mixrate.yaml": "workload:\n  mixture:\n  - {request_rate: 1}\n  - {request_rate: fast}\n",
    "groupname.yaml": "workload:\n  npu_num: 4\n  reqest_rate: 3\n",
    "grouptext.yaml": "workload: sharegpt\n",
    "grouptwice.yaml": "request_rate: 3\nworkload: {request_rate: 4}\n",
    "grouplist.yaml": "workload:\n  mixture: 4\n",
    "groupin.yaml": "workload: {engines: [{npu_num: 1}]}\n",
    "twice.yaml": "model: gpt2\nmodel_name: gpt2\n",
    "enginesmodel.yaml": "fp: 16\nengines:\n  - model_name: gpt2\n  - model_name: gpt-5\n  - hardware: H1000\n",
    "enginestp.yaml": "engines:\n  - {}\n  - {}\n  - npu_num: 6\n    tensor_parallel_size: 4\n",
    "enginesall.yaml": "engines:\n  - npu_num: 0\n    npu_gruop: 2\n  - {}\n  - scheduling: vlm\n    req_num: 5\n",
    "enginesnode.yaml": "node: dgx-h100\nengines:\n  - {}\n  - npu_num: 12\n    nodes: 5\n",
    "enginesboth.yaml": "engines:\n  - {}\n  - node: l40s-8\n    link_bw: 25\n",
    "engineslayers.yaml": "model_name: gpt2\nengines:\n  - {}\n  - pipeline_parallel_size: 32\n",
    "listed.yaml": "engines:\n  - {}\n",
    "seqs.yaml": "max_num_seqs: 9\n",
}

INSTANCE = {
    "model_name": "gpt2", "hardware": "RTX4090", "npu_mem": {"mem_size": 24, "mem_bw": 1008, "mem_util": 0.9},
    "num_npus": 1, "tp_size": 1,
}  # fmt: skip
CLUSTER: dict[str, Any] = {"num_nodes": 1, "link_bw": 16, "link_latency": 1000}
CLUSTERS: dict[str, list[dict[str, Any]]] = {
    "good": [{}, {"hardware": "L40S", "num_npus": 2, "tp_size": None}],
    "unknown": [{}, {"tp": 2}],
    "tp3": [{"num_npus": 4, "tp_size": 3}],
    "pp3": [{"num_npus": 4, "tp_size": 2, "pp_size": 3}],
    "nomodel": [{}, {"model_name": None}],
    "wrongmodel": [{"model_name": "gpt-5"}],
    "hardware": [{}, {"hardware": "RTX4091"}],
    "util": [{"npu_mem": {"mem_util": 90}}],
    "zero": [{"num_npus": 0}],
    "group": [{"dp_group": "A"}, {"dp_group": "A", "hardware": "L40S"}],
    "role": [{"pd_type": "prefill"}, {"pd_type": "encode"}],
    "cxl": [{"placement": {"default": {"weights": "cxl:0"}}}],
    "offload": [{"enable_attn_offloading": True}],
    "seqs": [{"max_num_seqs": 0, "dtype": "fp7"}],
    "ep": [{"num_npus": 4, "tp_size": 4, "ep_size": 2}],
    "memory": [{"npu_mem": {"mem_size": 0.1}}],
    "nothing": [],
}
CLUSTER_TEXTS: dict[str, str | bytes] = {
    "list": "[]",
    "count": json.dumps({**CLUSTER, "num_nodes": 3, "nodes": []}),
    "links": json.dumps({**CLUSTER, "link_bw": [16, -1], "link_latency": "slow", "nodes": []}),
}
ENGINE = {"model": "gpt2", "tensor_parallel_size": 1, "max_num_seqs": 4, "dtype": "bfloat16", "seed": 42}
ENGINES: dict[str, dict[str, Any]] = {
    "good": {},
    "unknown": {"max_num_seq": 4},
    "members": {"data_parallel_size": 0},
    "type": {"max_num_batched_tokens": "many"},
    "twice": {"scheduling_policy": "lifo"},
    "model": {"model": "gpt2-xl"},
    "tp2": {"tensor_parallel_size": 2},
    "recorded": {"engine_kwargs": ENGINE},
}
NODE = {
    "hardware": "H100",
    "dimensions": [{"topology": "Switch", "npus": 8, "link_gb_s": 450, "latency_ns": 300}],
    "between": {"link_gb_s": 50, "links": 8, "latency_ns": 1350},
}
NODES: dict[str, dict[str, Any]] = {
    "good": {},
    "bandwidth": {"dimensions": [{"topology": "Switch", "npus": 8, "link_gb_s": 0, "latency_ns": 300}]},
    "torus": {"dimensions": [{"topology": "Torus", "npus": 1, "link_gb_s": 1, "latency_ns": -1}]},
    "nodims": {"dimensions": []},
    "many": {"dimensions": [{"topology": "Ring", "npus": 2, "link_gb_s": 1, "latency_ns": 1}] * 4},
    "device": {"hardware": "H1000"},
    "fabric": {"fabric": "h1000-nvlink"},
    "between": {"between": None},
    "unknown": {"racks": 4},
    "links": {"between": {"link_gb_s": 50, "links": 0.5, "latency_ns": 1}},
}

CURVE = {"collective": "all_reduce", "ranks": 2, "points": [[1024, 5000], [2048, 6000]]}
FABRICS: dict[str, dict[str, Any]] = {
    "good": {},
    "nocurves": {"curves": []},
    "bare": {"curves": None},
    "empty": {"curves": [CURVE | {"points": []}]},
    "nopoints": {"curves": [{"collective": "all_reduce", "ranks": 2}]},
    "noranks": {"curves": [{"collective": "all_reduce", "points": [[1, 1]]}]},
    "one": {"curves": [CURVE | {"points": [[1024]]}]},
    "negative": {"curves": [CURVE | {"points": [[1024, -5]]}]},
    "zero": {"curves": [CURVE | {"points": [[0, 5]]}]},
    "twice": {"curves": [CURVE | {"points": [[1024, 5], [1024, 6]]}]},
    "falls": {"curves": [CURVE | {"points": [[1024, 5], [512, 6]]}]},
    "again": {"curves": [CURVE, CURVE]},
    "kind": {"curves": [CURVE | {"collective": "allreduce"}]},
    "lone": {"curves": [CURVE | {"ranks": 1}]},
    "source": {"curves": [CURVE | {"source": "me"}], "sources": {"mine": "me"}},
    "unknown": {"curve": []},
}
RANKS = "".join(f"#  Rank  {rank} Group  0 Pid  7 on  host device  {rank} [0x0{rank}] A40\n" for rank in (0, 1))
COLUMNS = "#  size  count  type  redop  root  time  algbw  busbw #wrong  time  algbw  busbw #wrong\n"
ROW = "  1024  256  float  sum  -1  {time}  0.09  0.13  0  11.30  0.09  0.14  0\n"
FABRIC_TEXTS: dict[str, str | bytes] = {
    "nan.json": json.dumps({"curves": [CURVE]}).replace("5000", "NaN"),
    "list.json": "[]",
    "all_reduce.txt": RANKS + COLUMNS + ROW.format(time="11.5"),
    "measured.txt": RANKS + COLUMNS + ROW.format(time="11.5"),
    "all_reduce-time.txt": RANKS + COLUMNS + ROW.format(time="soon"),
    "all_reduce-zero.txt": RANKS + COLUMNS + ROW.format(time="0.00"),
    "all_reduce-short.txt": RANKS + COLUMNS + "  1024  256  float  sum\n",
    "all_reduce-head.txt": RANKS + ROW.format(time="11.5"),
    "all_reduce-ranks.txt": COLUMNS + ROW.format(time="11.5"),
    "all_reduce-rows.txt": RANKS + COLUMNS,
    "none/readme.md": "nothing",
    "empty.txt": "",
    "prose.txt": "not measured\n",
}

REQUEST = {"id": "a", "arrival": 0, "prompt_len": 20, "output_len": 2}
SEGMENTS = {"id": "a", "arrival": 0, "output_len": 2}
LATENCY = {"a_us": 1000, "b_us_per_token": 10, "c_us_per_kv_token": 0.5}
CASE = {
    "max_num_seqs": 4, "max_num_batched_tokens": 64, "block_size": 16, "num_gpu_blocks": 20, "max_model_len": 128,
    "latency_model": LATENCY, "requests": [REQUEST],
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "good": {},
    "arrneg": {"requests": [REQUEST | {"arrival": -10}]},
    "boolmaybe": {"enable_prefix_caching": "maybe"},
    "hugearr": {"requests": [REQUEST | {"arrival": 10**400}]},
    "hugeprompt": {"requests": [REQUEST | {"prompt_len": 10**12}]},
    "noreq": {"requests": 5},
    "blocks1": {"num_gpu_blocks": 1},
    "bare": dict.fromkeys(CASE),
    "barelat": {"latency_model": {}},
    "barereq": {"requests": [{}]},
    "seqbudget": {"max_num_batched_tokens": 2},
    "unknown": {"max_num_seq": 4},
    "twice": {"requests": [REQUEST, REQUEST]},
    "segbig": {"requests": [SEGMENTS | {"prompt_segments": [[1, 10**12]]}]},
    "segneg": {"requests": [SEGMENTS | {"prompt_segments": [[1, -5]]}]},
    "segstr": {"requests": [SEGMENTS | {"prompt_segments": "x"}]},
    "noprompt": {"requests": [SEGMENTS]},
    "out0": {"requests": [REQUEST | {"output_len": 0}]},
    "outneg": {"requests": [REQUEST | {"output_len": -3}]},
    "prompt0": {"requests": [REQUEST | {"prompt_len": 0}]},
    "policy": {"policy": "sjf"},
    "groups": {"kv_cache_groups": [{"kind": "ring"}]},
    "nogroups": {"kv_cache_groups": []},
    "version": {"vllm_version": "1.0"},
    "latmiss": {"latency_model": {"a_us": 1}},
    "abort": {"requests": [REQUEST | {"abort_at": -5}]},
    "maxtok": {"requests": [REQUEST | {"max_tokens": -5}]},
    "prio": {"requests": [REQUEST | {"priority": "high"}]},
    "idlist": {"requests": [REQUEST | {"id": [1]}]},
    "hugeblocks": {"num_gpu_blocks": 10**12},
    "hugeblock": {"block_size": 10**12},
    "stages": {"pipeline_parallel_size": 0},
    "arrivals": {"requests": [REQUEST | {"arrival": 1.5}]},
}
CASE_TEXTS: dict[str, str | bytes] = {
    "nanlat": json.dumps(CASE).replace("1000,", "NaN,", 1),
    "inflat": json.dumps(CASE).replace("1000,", "Infinity,", 1),
    "bignum": json.dumps(CASE).replace('"arrival": 0', '"arrival": ' + "9" * 5000),
    "deep": "[" * 100_000,
    "list": "[]",
    "broken": "{",
    "dup": '{"requests":1,"requests":2}',
}

OTHERS: dict[str, str | bytes] = {
    "folder/readme.txt": "x",
    "t/short.csv": "hardware,model,layer_name,input,kv_cache,latency(ns)\nRTX3090,huggyllama/llama-7b,attn,1,0,5\n",
    "c/bomb.json.gz": gzip.compress(b" " * 50_000_000),
    "x.et": b"\x00\x01\x02",
    "pre.0.et": b"\xff" * 50,
    "text.txt": "hello\n",
    "longline.txt": "1" * (1 << 24),
    "g/empty.0.et": b"",
    "p/exits.py": "import sys; sys.exit(3)\n",
}


def write_all(folder: Path) -> None:
    """Write every file into `folder`."""
    for name, content in _files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, (file, old, new) in PROFILES.items():
        changed = bundle(folder / "q" / name) / file
        changed.write_text(changed.read_text().replace(old, new, 1))
    _write_kernel_tables(folder)


def _write_kernel_tables(folder: Path) -> None:
    """Write the tables of `KERNELS` into folders of ``kt``, of the profiles' model."""
    path = folder / "kt" / "run.yaml"
    path.parent.mkdir()
    path.write_text(f"model_name: {small_model(path.parent)}\nhardware: RTX4090\n")
    [plan], _ = plan_tables(read_deployments(path, None, None), Limits(8, 8, 2))
    for name, (file, old, new) in KERNELS.items():
        fill(plan, folder / "kt" / name, 1, lambda done, total: None)
        changed = folder / "kt" / name / file
        assert old in changed.read_text(), name
        changed.write_text(changed.read_text().replace(old, new, -1 if name == "kernel" else 1))


_ROW = '0,gpt2,9,3,0,0,0,100,300,300,0,100,100.000,"[100, 100]"\n1,gpt2,8,1,50,60,60,200,200,150,10,150,,\n'
_HEADER = (
    "request id,model,input,output,arrival,queued,scheduled,first_token,end_time,latency,queuing_delay,TTFT,TPOT,ITL\n"
)
_SERVED = [
    {
        "request_id": f"bench-{place}",
        "input_toks": 9 - place,
        "output_toks": 3 - 2 * place,
        "arrival_time": 1.7e9,
        "queued_ts": 5.0,
        "scheduled_ts": 5.0,
        "first_token_ts": 5.5 + place,
        "last_token_ts": 6.5,
    }
    for place in (0, 1)
]
_CLIENT = {
    "endpoint_type": "openai",
    "duration": 2.5,
    "request_throughput": 0.8,
    "input_lens": [9, 8],
    "output_lens": [3, 1],
    "ttfts": [0.5, 1.5],
    "itls": [[0.5, 0.5], []],
    "errors": ["", ""],
}


REGISTRIES = {
    "good": ("", ""),
    "bandwidth": ('"memory_bandwidth_gb_s": 2000', '"memory_bandwidth_gb_s": null'),
    "word": ("13300000000", '"13 GB"'),
    "bits": ("524288", '524288, "bits": 7'),
    "speed": ("10000", "0"),
    "object": ('{"ptps": 10000}', '"fast"'),
    "syntax": ('{"ptps"', '{"ptps":'),
}
"""Registries of the estimator, each with one text in one of its files changed."""
_REGISTRY = {
    "gpu": '{\n "A100": {"memory_bandwidth_gb_s": 2000}\n}\n',
    "model": '{\n "opt": {"weight_bytes": 13300000000, "kv_bytes_per_token": 524288}\n}\n',
    "ptps": '{\n "opt": {\n  "A100": {"ptps": 10000}\n }\n}\n',
}


def _registries() -> Files:
    for folder, (before, after) in REGISTRIES.items():
        for name, text in _REGISTRY.items():
            yield f"g/{folder}/{name}.json", text.replace(before, after) if before else text


def _served(**values: Any) -> str:
    """Return two recorded requests, the second with `values`; None takes a field out."""
    return "".join(json.dumps(one) + "\n" for one in (_SERVED[0], _with(_SERVED[1], values)))


def _validation() -> Files:
    """Yield runs and recordings, right ones and wrong ones."""
    yield "v/run.csv", _HEADER + _ROW
    yield "v/none.csv", _HEADER
    yield "v/cells.csv", _HEADER + "0,gpt2,9,3,0,0,0,100\n"
    yield "v/twice.csv", _HEADER + _ROW.replace("\n1,", "\n0,")
    yield "v/back.csv", _HEADER + _ROW.replace(",200,200,", ",55,200,")
    yield "v/word.csv", _HEADER + _ROW.replace(",200,200,", ",soon,200,")
    yield "v/itl.csv", _HEADER + _ROW.replace("[100, 100]", "[100, x]")
    rows = {
        "good": {},
        "noqueue": {"queued_ts": None},
        "order": {"last_token_ts": 1.5},
        "zero": {"output_toks": 0, "input_toks": "8"},
        "other": {"input_toks": 900},
    }
    for name, values in rows.items():
        yield f"v/{name}/requests.jsonl", _served(**values)
    yield "v/broken/requests.jsonl", _served() + "{\n"
    yield "v/list/requests.jsonl", _served() + "[1]\n"
    yield "v/others/requests.jsonl", "".join(json.dumps(_with(one, {"input_toks": 900})) + "\n" for one in _SERVED)
    for name, text in {
        "header": "t,running\n",
        "text": _SERIES + "1,2,3,few,5,6\n",
        "back": _SERIES + 2 * _TICK,
    }.items():
        yield f"v/{name}/requests.jsonl", _served()
        yield f"v/{name}/timeseries.csv", text
    yield "v/meta/requests.jsonl", _served()
    yield "v/meta/meta.json", '{"kv_cache": {"num_gpu_blocks": "many"}}'
    clients: dict[str, dict[str, Any]] = {
        "good": {},
        "brief": dict.fromkeys(("input_lens", "output_lens", "ttfts", "itls", "errors")),
        "short": {"ttfts": [0.5]},
        "itls": {"itls": [[0.5, "x"], []]},
        "negative": {"ttfts": [0.5, -1]},
        "failed": {"errors": ["timeout", "timeout"]},
    }
    yield from _changed("b", _CLIENT, clients, {"lines": json.dumps(_CLIENT) + "\n" + json.dumps(_CLIENT)})


_SERIES = "t,prompt_throughput,gen_throughput,running,waiting,kv_cache_pct\n"
_TICK = "1.0,10,20,2,0,5.5\n"


def _files() -> Files:
    hardware = json.loads((ROOT / "configs" / "hardware" / "H100.json").read_text())
    yield from WORKLOADS.items()
    yield from RECORDINGS.items()
    yield from _changed("m", MODEL, MODELS, MODEL_TEXTS)
    yield from _changed("h", hardware, HARDWARE, {})
    yield from _changed("d", TEMPLATE, TEMPLATES, {})
    yield from ((f"l/{name}.yaml", json.dumps(_with(SYSTEM_FILE, changes))) for name, changes in SYSTEM_FILES.items())
    yield "l/list.yaml", "- llama70b\n"
    for name, values in NETWORKS.items():
        yield f"n/{name}.yml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in _with(NETWORK, values).items())
    yield from ((f"n/{name}.yml", text) for name, text in NETWORK_TEXTS.items())
    yield from _changed("s", SYSTEM, SYSTEMS, SYSTEM_TEXTS)
    yield from _changed("r", MEMORY, MEMORIES, {"broken": "{"})
    yield from ((f"f/{name}", text) for name, text in RUN_FILES.items())
    for name, instances in CLUSTERS.items():
        listed = [_with(INSTANCE, one) for one in instances]
        node = {"num_instances": len(listed), "cpu_mem": {"mem_size": 64, "mem_bw": 50}, "instances": listed}
        yield f"k/{name}.json", json.dumps({**CLUSTER, "nodes": [node]}, indent=1)
    yield from ((f"k/{name}.json", text) for name, text in CLUSTER_TEXTS.items())
    yield from _changed("e", ENGINE, ENGINES, {"list": "[1]", "broken": "{"})
    yield from _changed("o", NODE, NODES, {"list": "[]"})
    yield from _changed("fa", {"curves": [CURVE]}, FABRICS, {})
    yield from ((f"fa/{name}", text) for name, text in FABRIC_TEXTS.items())
    yield from _changed("c", CASE, CASES, CASE_TEXTS)
    yield from OTHERS.items()
    yield from _validation()
    yield from _registries()


def _changed(
    folder: str, good: dict[str, Any], changes: dict[str, dict[str, Any]], texts: dict[str, str | bytes]
) -> Files:
    for name, values in changes.items():
        yield f"{folder}/{name}.json", json.dumps(_with(good, values))
    for name, text in texts.items():
        yield f"{folder}/{name}.json", text


def _with(good: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return `good` with `values`; None takes a field out."""
    return {name: value for name, value in {**good, **values}.items() if value is not None}
