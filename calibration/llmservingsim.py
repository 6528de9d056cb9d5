"""Points of LLMServingSim's layer profiles: `<machine>/<model>/<variant>/tp<N>/{dense,attention,per_sequence}.csv`.

SOURCE of the layout: casys-kaist/LLMServingSim (MIT), profiler of vLLM layers; `meta.yaml` of a variant names GPU, vLLM
version and model. Times are in us; `kv_decode` is the context of each sequence. One layer is profiled between the
embedding and the head of a model, whose weights pass through L2 between two uses, so that all rows are cold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from calibration.aic_attention import MIN_TOKENS
from calibration.aic_products import gemm_bytes
from calibration.fitting import Array
from calibration.points import Points, prefill_splits
from calibration.split import fitted_on, unseen_shapes
from calibration.tables import Table, read_table
from hw_profiles.attention import GQA
from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import BASE_GROUP, BASE_HEAD_DIM, decode_name, prefill_name
from hw_profiles.models import list_models, load_model
from hw_profiles.yaml_io import read_text

PRODUCTS = {"qkv_proj": "qkv", "o_proj": "o", "gate_up_proj": "gate_up", "down_proj": "down"}
"""Dense layers of a profile and the matrices of hw_profiles.geometry that they are."""


@dataclass(frozen=True)
class Run:
    """One profiled model on so many ranks; `attention` and `matrices` (name -> n, k) are those of a rank."""

    folder: Path
    model: str
    ranks: int
    version: str
    attention: GQA
    matrices: dict[str, tuple[int, int]]


def runs(folder: Path) -> tuple[str, list[Run]]:
    """(GPU, profiled models) below a machine's folder. Raises InputError for none, or for more than one GPU."""
    metas = sorted(folder.glob("**/meta.yaml"))
    found: list[Run] = []
    gpus: dict[str, Path] = {}
    for path in metas:
        meta = _meta(path)
        gpus.setdefault(_word(meta, "gpu", path), path)
        if meta.get("variant") == "bf16":
            found += [_run(dense.parent, meta, path) for dense in sorted(path.parent.glob("tp*/dense.csv"))]
    if len(gpus) > 1:
        (first, _), (other, path), *_ = gpus.items()
        raise InputError("rows of two devices in one import", where=path, path="gpu", found=other, allowed=first)
    if not found:
        allowed = "a machine's folder with <model>/bf16/meta.yaml and tp1/dense.csv"
        raise InputError("no layer profiles", where=folder, allowed=allowed)
    return next(iter(gpus)), found


def llmservingsim_points(folder: Path, found: list[Run]) -> Iterator[Points]:
    """Matrix products of all models together; attention by query heads per KV head and head width."""
    gemms = [part for run in found for part in _products(run)]
    shape = {name: np.concatenate([part[0][name] for part in gemms]) for name in ("m", "n", "k")}
    m, n, k = shape["m"], shape["n"], shape["k"]
    unseen, second = unseen_shapes(n, k), fitted_on(m)
    version = found[0].version
    yield Points(
        "gemm_bf16",
        {**shape, "bytes": gemm_bytes("bf16", m, n, k), "flops": 2 * m * n * k},
        np.concatenate([part[1] for part in gemms]),
        fitted=~unseen & second,
        splits={"measured shapes": ~unseen & ~second, "unseen shapes": unseen},
        family=f"vLLM {version} torch.nn.functional.linear",
        what=f"{len({*zip(n, k, strict=True)})} shapes of {_models(found)}",
        table=", ".join(str(run.folder.relative_to(folder)) for run in found),
    )
    layouts = dict.fromkeys((_group(run), run.attention.head_dim) for run in found)
    for group, head_dim in layouts:
        same = [run for run in found if (_group(run), run.attention.head_dim) == (group, head_dim)]
        yield _decode_points(folder, same, group, head_dim)
    for head_dim in dict.fromkeys(run.attention.head_dim for run in found):
        yield _prefill_points(folder, [run for run in found if run.attention.head_dim == head_dim], head_dim)


def batch_tables(found: list[Run]) -> tuple[Path, int] | None:
    """(folder, KV heads) of the run that has the layout profiles stand for and a table of unequal lengths, if one has.

    The layout is that of `decode_attn`: on one GPU, 4 query heads per KV head, heads of 128.
    """
    for run in found:
        stands_for = (run.ranks, _group(run), run.attention.head_dim) == (1, BASE_GROUP, BASE_HEAD_DIM)
        if stands_for and (run.folder / "skew.csv").is_file():
            return run.folder, run.attention.kv_heads
    return None


def _group(run: Run) -> int:
    return run.attention.heads // run.attention.kv_heads


def _decode_points(folder: Path, same: list[Run], group: int, head_dim: int) -> Points:
    shape, seconds = _join([_decode(run) for run in same])
    fitted = fitted_on(shape["batch"], shape["seq"], shape["kv_heads"])
    short = seconds[(shape["batch"] <= 8) & (shape["seq"] <= MIN_TOKENS)]
    low, middle, high = np.quantile(short, [0.05, 0.5, 0.95])
    return Points(
        decode_name("bf16", group, head_dim),
        shape,
        seconds,
        fitted=fitted,
        splits={"held out": ~fitted},
        family=f"vLLM {same[0].version}",
        what=f"{group} query heads per KV head, heads of {head_dim}, {_models(same)}, {len(seconds)} rows",
        table=_tables(folder, same),
        floor=(float(middle), float(low), float(high)),
    )


def _prefill_points(folder: Path, same: list[Run], head_dim: int) -> Points:
    shape, seconds = _join([_prefill(run) for run in same])
    prefix = shape.pop("prefix")
    fitted = fitted_on(shape["tokens"], prefix, shape["heads"])
    about = f"heads of {head_dim}, {_models(same)}, {len(seconds)} rows of {shape['tokens'].min():.0f}"
    return Points(
        prefill_name("bf16", head_dim),
        shape,
        seconds,
        fitted=fitted,
        splits=prefill_splits(shape["heads"], fitted),
        family=f"vLLM {same[0].version}",
        what=f"{about}..{shape['tokens'].max():.0f} tokens after {prefix.min():.0f}..{prefix.max():.0f} cached ones",
        table=_tables(folder, same),
        prefix=(int(prefix.min()), int(prefix.max())),
    )


def _models(same: list[Run]) -> str:
    return ", ".join(sorted({run.model for run in same}))


def _tables(folder: Path, same: list[Run]) -> str:
    return ", ".join(str((run.folder / "attention.csv").relative_to(folder)) for run in same)


def _join(parts: list[tuple[dict[str, Array], Array]]) -> tuple[dict[str, Array], Array]:
    names = parts[0][0]
    return {name: np.concatenate([part[0][name] for part in parts]) for name in names}, np.concatenate(
        [part[1] for part in parts]
    )


def _products(run: Run) -> Iterator[tuple[dict[str, Array], Array]]:
    dense = read_table(run.folder / "dense.csv", ("layer", "tokens", "time_us"))
    heads = read_table(run.folder / "per_sequence.csv", ("layer", "sequences", "time_us"))
    rows = [
        (dense.equal(layer=layer), "tokens", run.matrices[name])
        for layer, name in PRODUCTS.items()
        if name in run.matrices
    ]
    for table, column, (n, k) in [*rows, (heads.equal(layer="lm_head"), "sequences", run.matrices["head"])]:
        if len(table):
            m = table.numbers(column)
            yield {"m": m, "n": np.full_like(m, n), "k": np.full_like(m, k)}, table.times("time_us", 1e-6)


def _decode(run: Run) -> tuple[dict[str, Array], Array]:
    rows = _rows(run).equal(prefill_chunk=0)
    rows = rows.where((rows.numbers("n_decode") > 0) & (rows.numbers("kv_decode") >= MIN_TOKENS))
    batch, seq = rows.numbers("n_decode"), rows.numbers("kv_decode")
    layout = run.attention
    nbytes = batch * seq * (2 * layout.kv_heads * layout.head_dim * 2)
    shape = {"batch": batch, "kv_heads": np.full_like(batch, layout.kv_heads), "seq": seq, "bytes": nbytes}
    return shape, rows.times("time_us", 1e-6)


def _prefill(run: Run) -> tuple[dict[str, Array], Array]:
    rows = _rows(run).equal(n_decode=0)
    rows = rows.where(rows.numbers("prefill_chunk") > 0)
    tokens, prefix = rows.numbers("prefill_chunk"), rows.numbers("kv_prefill")
    context, layout = prefix + tokens / 2, run.attention
    flops = tokens * context * (4 * layout.q_size)
    heads = {"heads": np.full_like(tokens, layout.heads), "kv_heads": np.full_like(tokens, layout.kv_heads)}
    shape = {"tokens": tokens, **heads, "context": context, "flops": flops}
    return {**shape, "prefix": prefix}, rows.times("time_us", 1e-6)


def _rows(run: Run) -> Table:
    columns = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    return read_table(run.folder / "attention.csv", columns)


def _run(folder: Path, meta: dict[str, Any], path: Path) -> Run:
    name, ranks = _word(meta, "model", path), int(folder.name.removeprefix("tp"))
    known = {load_model(each).origin: each for each in list_models()}
    spec = next((load_model(each) for origin, each in known.items() if _bare(origin) == _bare(name)), None)
    if spec is None:
        raise InputError(
            "a model whose shapes kvsim does not have", where=path, path="model", found=name, allowed=known
        )
    (_, layer), *_ = spec.layer_kinds(ranks)
    if not isinstance(layer.attention, GQA):
        raise InputError("attention of another kind", where=path, path="model", found=name, allowed="MHA, GQA or MQA")
    matrices = {gemm.name: (gemm.n, gemm.k) for gemm in layer.gemms if not gemm.expert}
    matrices["head"] = (-(-spec.vocab // ranks), spec.hidden)
    return Run(folder, spec.name, ranks, str(meta.get("vllm_version", "")), layer.attention, matrices)


def _bare(origin: str) -> str:
    """A model's name on Hugging Face without owner and without what fine-tuning appends."""
    return origin.rpartition("/")[2].removesuffix("-Instruct-2507").removesuffix("-Instruct").lower()


def _meta(path: Path) -> dict[str, Any]:
    """`meta.yaml`, whose keys need not be text."""
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {str(error).splitlines()[0]}", where=path) from None
    if not isinstance(found, dict):
        raise InputError("found no mapping", where=path)
    return found


def _word(meta: dict[str, Any], key: str, path: Path) -> str:
    value = meta.get(key)
    if not isinstance(value, str) or not value:
        raise InputError("", where=path, path=key, found=value, allowed="text")
    return value
