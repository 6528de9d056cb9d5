"""What the memory of a GPU is for: weights, activations, reserve, windows, KV."""

from typing import Any

from reports.figures.base import BLUE, GREEN, GREY, ORANGE, PURPLE, QUIET, Figure
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import binary_bytes, is_number, number, percent

GIB = 1024.0**3
PARTS = (
    ("weights", "weights", ORANGE, "The model's parameters on this GPU."),
    ("activations", "activations", PURPLE, "The widest moment of the largest step, and the logits."),
    ("reserved", "reserved", GREY, "Context, graphs and slack of the allocator, and what policies keep."),
    ("windows", "sliding windows", GREEN, "KV of sliding layers that is kept apart from the blocks."),
    ("kv", "KV blocks", BLUE, "Blocks for prompts and answers: the tier HBM."),
)
FREE = "left free"


def budget_parts(run: RunData) -> list[tuple[str, float, str, str]]:
    """(label, bytes, colour, meaning) of every part of a GPU's memory; they add up to all of it. Empty where the
    summary does not say."""
    budget = section(section(run.summary, "hardware"), "hbm_budget")
    total = budget.get("total")
    if not is_number(total) or any(not is_number(budget.get(key)) for key, *_ in PARTS):
        return []
    parts = [(label, float(budget[key]), color, what) for key, label, color, what in PARTS if budget[key]]
    left = total - sum(size for _, size, _, _ in parts)
    meaning = "Beyond what the engine may use (gpu_memory_utilization), and less than a block."
    return [*parts, (FREE, left, QUIET, meaning)] if left > 0 else parts


def hbm_budget(run: RunData) -> list[Figure]:
    """One stacked bar, for every GPU alike; no figure where the summary does not say."""
    parts = budget_parts(run)
    if not parts:
        return []
    total = sum(size for _, size, _, _ in parts)
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label,
            "y": ["a GPU"],
            "x": [round(size / GIB, 4)],
            "marker": {"color": color},
            "hovertemplate": f"%{{fullData.name}}  %{{x:,.4~r}} GiB, {percent(size / total)}<extra></extra>",
        }
        for label, size, color, _ in parts
    ]
    layout = {
        "barmode": "stack",
        "height": 220,
        "bargap": 0.4,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "memory of a GPU (GiB)"}, "range": [0, total / GIB], "zeroline": False},
        "yaxis": {"showgrid": False, "ticksuffix": "  "},
    }
    kv = next((size for label, size, _, _ in parts if label == "KV blocks"), 0.0)
    return [
        Figure(
            "hbm-budget",
            "What HBM is for",
            _read(run),
            f"{binary_bytes(kv)} of {binary_bytes(total)} hold KV: {_tokens(run)}.",
            data,
            layout,
        )
    ]


def budget_table(run: RunData) -> list[TextTable]:
    """The same in numbers."""
    parts = budget_parts(run)
    total = sum(size for _, size, _, _ in parts)
    rows = [(label, binary_bytes(size), percent(size / total), what) for label, size, _, what in parts]
    rows.append(("all", binary_bytes(total), percent(1.0), "What a process can allocate on the GPU."))
    columns = ("HBM of a GPU", "Size", "Share", "Meaning")
    return [TextTable("hbm-parts", "What HBM is for", _read(run), columns, rows, (1, 2))] if parts else []


def _read(run: RunData) -> str:
    each = section(run.summary, "hardware")
    if each.get("tp", 1) == each.get("pp", 1) == 1:
        return "Memory of one GPU; every replica's is alike."
    return "Memory of one GPU: of a replica's GPUs, the one with the least room for KV."


def _tokens(run: RunData) -> str:
    hardware = section(run.summary, "hardware")
    blocks, per_token = section(hardware, "hbm_budget").get("blocks"), hardware.get("kv_bytes_per_token")
    hbm = section(section(run.summary, "tiers"), run.tiers[0]) if run.tiers else {}
    capacity, count = hbm.get("capacity_bytes"), hbm.get("count")
    if not (is_number(capacity) and is_number(count) and is_number(per_token) and count and per_token):
        return f"{number(blocks)} blocks"
    return f"{number(blocks)} blocks, {number(capacity / count / per_token)} tokens on a replica"
