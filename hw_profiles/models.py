"""Models by name or by Hugging Face `config.json`: parameters, bytes, matrix products, what a token caches.

`load_model` reads a shipped config (hw_profiles/models/<name>/config.json, each with the source of its values) or any
other. The parts: `model_spec` (ModelSpec), `geometry` (LayerSpec), `attention` (GQA, MLA), `mlp` (dense, experts),
`cadence` (over which tokens a layer runs), `formats` (number formats), `families` (what each model_type adds to its
config), `model_config` and `quantization` (reading).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.geometry import LayerSpec
from hw_profiles.model_config import model_from_config
from hw_profiles.model_spec import ModelSpec, Stage
from hw_profiles.yaml_io import read_text

__all__ = ["LayerSpec", "ModelSpec", "Stage", "list_models", "load_model"]

_SHIPPED = Path(__file__).parent / "models"


def list_models() -> list[str]:
    """Names of the shipped model configs."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/config.json"))


def load_model(name_or_path: str | Path) -> ModelSpec:
    """ModelSpec of a shipped name, a `config.json`, or a folder that holds one. Raises InputError.

    As in vLLM, a config without `quantization_config` takes the one of a `hf_quant_config.json` beside it.
    """
    text = str(name_or_path)
    if text in list_models():
        return _read(_SHIPPED / text / "config.json", name=text)
    path = Path(name_or_path)
    if path.is_dir():
        return _read(path / "config.json", name=path.resolve().name)
    if path.suffix == ".json" or path.exists():
        return _read(path, name=path.resolve().parent.name if path.name == "config.json" else path.stem)
    names = list_models()
    listed = f"{', '.join(names[:12])} and {len(names) - 12} more" if len(names) > 12 else ", ".join(names)
    allowed = f"the path of a config.json, or one of {listed}"
    raise InputError("unknown model", found=text, allowed=allowed, near=names)


def _read(path: Path, name: str) -> ModelSpec:
    config, digest = _json(path)
    beside = path.with_name("hf_quant_config.json")
    sha256 = digest
    if not config.get("quantization_config") and path.name == "config.json" and beside.exists():
        found, other = _json(beside)
        config = {**config, "quantization_config": found.get("quantization")}
        sha256 = hashlib.sha256(f"{digest}{other}".encode()).hexdigest()
    try:
        return model_from_config(config, name=name, source=str(path), sha256=sha256)
    except InputError as error:
        raise error.at(where=path) from None


def _json(path: Path) -> tuple[dict[str, Any], str]:
    """The object in a JSON file and the sha256 of its text."""
    text = read_text(path)
    try:
        config = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: not valid JSON: {error.msg}", where=path) from None
    except InputError as error:
        raise error.at(where=path) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
        raise InputError(f"not usable JSON: {error}", where=path) from None
    if not isinstance(config, dict):
        raise InputError("expected a JSON object", where=path)
    return config, hashlib.sha256(text.encode()).hexdigest()


def _no_constant(token: str) -> float:
    raise InputError(f"{token} is not a JSON number")
