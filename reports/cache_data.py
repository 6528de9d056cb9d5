"""A study of `kvsim cache` as its page needs it, read from the folder that it wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from reports.cache_report import render as render_study
from reports.cache_report import sections as study_sections
from reports.document import Section
from reports.documents import as_written, read_document, read_json
from reports.regret_report import render as render_regret
from reports.regret_report import sections as regret_sections
from sim.cache.bound import Bound, Step
from sim.cache.prices import Prices
from sim.cache.regret import PolicyRow, Regret, TierFacts
from sim.cache.save import FILE, SCHEMA
from sim.cache.save_regret import SCHEMA as REGRET_SCHEMA
from sim.cache.study import Row, Study

TABLE = "cache.json"


def load_study(folder: Path) -> Study | Regret:
    """The study in `folder`: hit ratios by capacity, or regret in a scenario's tiers. Raises InputError, one line."""
    path = folder / TABLE
    if isinstance(read_json(path), list):  # rows of hit ratios; the rest is beside them
        path = folder / FILE
        if not path.is_file():
            raise InputError("written by another version of kvsim: make it again", where=folder, path=FILE)
        document = read_document(path, SCHEMA)
        with as_written(path):
            return _study(document)
    document = read_document(path, REGRET_SCHEMA)
    with as_written(path):
        return _regret(document)


def render(study: Study | Regret) -> str:
    """The page of the study."""
    return render_study(study) if isinstance(study, Study) else render_regret(study)


def sections(study: Study | Regret) -> list[Section]:
    """The sections of its page with figures and tables."""
    return study_sections(study) if isinstance(study, Study) else regret_sections(study)


def _study(document: Mapping[str, Any]) -> Study:
    def counted(key: str) -> int:
        return int(document[key])

    def rows(key: str) -> tuple[Row, ...]:
        return tuple(_row(row) for row in document[key])

    return Study(
        trace=str(document["trace"]),
        source=str(document["source"]),
        block_tokens=counted("block_tokens"),
        requests=counted("requests"),
        input_tokens=counted("input_tokens"),
        accesses=counted("accesses"),
        distinct_blocks=counted("distinct_blocks"),
        policies=tuple(map(str, document["policies"])),
        capacities=tuple(None if size is None else int(size) for size in document["capacities"]),
        rows=rows("rows"),
        belady=rows("belady"),
        unbounded=_row(document["unbounded"]),
        ceilings=rows("ceilings"),
    )


def _row(row: Mapping[str, Any]) -> Row:
    size = row["capacity_tokens"]
    ratios = (float(row[key]) for key in ("hit_ratio", "block_hit_ratio", "engine_hit_ratio"))
    return Row(str(row["policy"]), None if size is None else int(size), *ratios)


def _regret(document: Mapping[str, Any]) -> Regret:
    tiers = tuple(
        TierFacts(str(t["name"]), int(t["capacity_tokens"]), float(t["load_s_per_token"])) for t in document["tiers"]
    )
    compute, bound = document["compute"], document["bound"]
    steps = tuple(Step(int(s["capacity_tokens"]), int(s["missed_tokens"]), float(s["seconds"])) for s in bound["steps"])
    seconds = np.array(compute["s_per_token"], dtype=np.float64)
    prefetch = document["prefetch"]
    return Regret(
        scenario=str(document["name"]),
        trace=str(document["trace"]),
        source=str(document["scenario"]),
        requests=int(document["requests"]),
        left_out=int(document["left_out"]),
        input_tokens=int(document["input_tokens"]),
        prefetch=None if prefetch is None else str(prefetch),
        warnings=tuple(map(str, document["warnings"])),
        prices=Prices(tuple(tier.load_s_per_token for tier in tiers), seconds, int(compute["chunk_tokens"])),
        tiers=tiers,
        bound=Bound(float(bound["lower_bound_s"]), float(bound["first_use_s"]), steps),
        rows=tuple(_policy(row) for row in document["policies"]),
    )


def _policy(row: Mapping[str, Any]) -> PolicyRow:
    hits = {str(tier): int(tokens) for tier, tokens in row["hit_tokens"].items()}
    seconds = (float(row[key]) for key in ("load_s", "compute_s", "regret"))
    return PolicyRow(str(row["policy"]), hits, int(row["computed_tokens"]), *seconds)
