"""Text traces as LLMServingSim writes them, built here line by line so that the layouts are stated independently."""

from __future__ import annotations

NAMES = (
    *("Layername", "comp_time", "input_loc", "input_size", "weight_loc", "weight_size"),
    *("output_loc", "output_size", "comm_type", "comm_size", "misc"),
)


def orca_line(*fields: object) -> str:
    widths = (33, 14, *[12] * 9)
    padded = [str(field).ljust(width) for field, width in zip([*fields, *[""] * 11], widths, strict=False)]
    return "".join(padded) + "\n"


def main_line(*fields: object) -> str:
    return f"{fields[0]!s:<30} " + " ".join(f"{field!s:<15}" for field in [*fields[1:], *[""] * 10][:10]) + "\n"


def first_release_line(*fields: object) -> str:
    return f"{fields[0]!s:<30}" + "".join(f"{field!s:<15}" for field in [*fields[1:], *[""] * 10][:10]) + "\n"


def text(header: str, rows: list[tuple[object, ...]], line: object) -> str:
    assert callable(line)
    return "".join([header + "\n", f"{len(rows)}\n", line(*NAMES), *(line(*row) for row in rows)])


def orca(groups: int = 2, requests: int = 3, layers: int = 2, moved: bool = True) -> str:
    """v0.2.1: every input and output REMOTE, weights LOCAL, sizes and times of the whole model."""
    rows: list[tuple[object, ...]] = []

    def add(name: str, time: int, size: int, out: int, comm: int = 0) -> None:
        kind = "ALLREDUCE" if comm else "NONE"
        rows.append((f"{name}_{len(rows)}", time, "REMOTE", size, "LOCAL", 640, "REMOTE", out, kind, comm, "NONE"))

    if moved:
        rows.append(("vllm_load_kv_0", 0, "LOCAL", 0, "REMOTE", 5000, "REMOTE", 0, "NONE", 0, "NONE"))
        rows.append(("vllm_evict_kv_1", 0, "LOCAL", 0, "REMOTE", 7000, "REMOTE", 0, "NONE", 0, "NONE"))
    add("embedding", 1001, 96, 8192)
    for _ in range(layers):
        add("input_layernorm", 333, 8192, 8192)
        add("q_proj", 5000, 8192, 7680)
        for request in range(requests):
            rows.append((f"ATTENTION {request}",))
            add("rope", 70 + request, 7680 // requests, 7680 // requests)
            add("attn", 900 + request, 7680 // requests, 7680 // requests)
        rows.append(("ATTENTION END",))
        add("o_proj", 4001, 7680, 8192, 8192)
        add("down_proj", 9999, 8192, 8192, 8192)
    add("lm_head", 7777, 8192, 16384)
    return text(f"ORCA\t\tmodel_parallel_NPU_group: {groups}", rows, orca_line)


def colocated(
    kind: str = "COLOCATED", boundaries: str = "", groups: int = 1, experts: int = 0, line: object = main_line
) -> str:
    """LLMServingSim main: per rank, attention one row a batch, EXPERT sections, sampler last."""
    rows: list[tuple[object, ...]] = []
    collective = "ALLREDUCE:1,0"

    def add(name: str, time: int, size: int, out: int, comm: int = 0, **more: object) -> None:
        fields = (time, more.get("input", "LOCAL"), size, more.get("weight", "LOCAL"), 640, more.get("output", "LOCAL"))
        misc = more.get("misc", "NONE")
        comm_type = more.get("comm_type", collective if comm else "NONE")
        rows.append((f"{name}_{len(rows)}", *fields, out, comm_type, comm, misc))

    rows.append(("kv_load_0", 0, "LOCAL", 0, "REMOTE:0", 5000, "LOCAL", 0, "NONE", 0, "NONE"))
    add("embedding", 1001, 96, 8192, input="REMOTE:0")
    for layer in range(2):
        add("layernorm", 333, 8192, 8192)
        if kind == "PREFILL":
            add("qkv_proj", 5000, 8192, 12288, 4096, comm_type="NONE")
        else:
            add("qkv_proj", 5000, 8192, 12288, weight="CXL:1" if layer else "LOCAL")
        add("attention", 900, 12288, 8192)
        add("o_proj", 4001, 8192, 8192, 8192)
        for expert in range(experts):
            with_collective = line is main_line
            said = ("ALLGATHER:1,1", 512) if expert == 0 else ("NONE", 0)
            rows.append((f"EXPERT {expert} {said[0]} {said[1]}" if with_collective else f"EXPERT {expert}",))
            add("expert", 2000 + expert, 8192, 8192)
        if experts:
            rows.append(("EXPERT END REDUCESCATTER:1,1 1024" if line is main_line else "EXPERT END",))
        add("down_proj", 9999, 8192, 8192, 8192)
    add("sampler", 77, 8192, 8, output="REMOTE:0")
    header = f"{kind}\t\tmodel_parallel_NPU_group: {groups}"
    return text(header + (f"\t\tpp_stage_boundaries: {boundaries}" if boundaries else ""), rows, line)


def interleaved() -> str:
    """Sub-batches and PIM sections."""
    rows: list[tuple[object, ...]] = []
    for misc in ("BATCH_1", "BATCH_2"):
        rows.append((f"qkv_proj_{len(rows)}", 50, "REMOTE:0", 8, "LOCAL", 6, "LOCAL", 8, "NONE", 0, misc))
        for channel in range(2):
            rows.append((f"PIM {channel}",))
            there = f"REMOTE:0.{channel}"
            rows.append((f"attention_{len(rows)}", 30, there, 8, "LOCAL", 0, there, 8, "NONE", 0, misc))
        rows.append(("PIM END",))
        rows.append((f"o_proj_{len(rows)}", 40, "LOCAL", 8, "LOCAL", 6, "LOCAL", 8, "ALLREDUCE", 8, misc))
    return text("DECODE\t\tmodel_parallel_NPU_group: 1", rows, main_line)


def event(layout: object = main_line) -> str:
    return text("EVENT", [("event_1234ns", 1234, "REMOTE", 0, "LOCAL", 0, "REMOTE", 0, "NONE", 0, "NONE")], layout)


SAMPLES = {
    "orca": orca(),
    "orca-one-group": orca(groups=1, requests=5, moved=False),
    "colocated": colocated(),
    "colocated-stages": colocated(boundaries="6", groups=2),
    "colocated-experts": colocated(experts=2),
    "first-release": colocated(experts=2, line=first_release_line),
    "prefill": colocated("PREFILL"),
    "decode-interleaved": interleaved(),
    "event": event(),
    "event-0.2": event(orca_line),
}
