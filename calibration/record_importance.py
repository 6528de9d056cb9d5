"""Page scores of a real model while it decodes, for `importance: {name: recorded, path: FILE}` (docs/importance.md).

It is called as Hugging Face's decoders are: `model(input_ids=, past_key_values=, use_cache=, output_attentions=)`
with `logits`, `past_key_values` and `attentions` in the reply, the last [1, heads, queries, tokens] for each layer.
Attention is asked for in decode steps alone, one query each: memory grows with the context and not with its square.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.suite.preflight import require
from hw_profiles.errors import InputError
from traces.importance.recorded import save

NO_MASS = 1e-30
"""A page that gets less is recorded as that: -inf is for pages that are not there yet."""
TINY = "tiny"
"""The name of `calibration.tiny_decoder`, whose tokens are bytes."""


def load_model(name: str, text: str) -> tuple[Any, list[int]]:
    """A model and the tokens of `text`: `tiny`, or a Hugging Face model by name or folder, on its GPU if there is one.

    Raises InputError if torch or transformers is not installed, or for a model that cannot be loaded.
    """
    require("torch")
    if name == TINY:
        from calibration.tiny_decoder import TinyDecoder

        return TinyDecoder(vocabulary=256), list(text.encode())
    try:
        hub = importlib.import_module("transformers")
    except ImportError:
        raise InputError("transformers is not installed (pip install transformers accelerate)", found=name) from None
    try:
        tokens = hub.AutoTokenizer.from_pretrained(name)(text)["input_ids"]
        kind = hub.AutoModelForCausalLM
        model = kind.from_pretrained(name, attn_implementation="eager", device_map="auto", torch_dtype="auto")
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"cannot be loaded: {error}", where=name) from None
    return model, list(tokens)


def record(
    model: Any, prompt: list[int], out: Path, *, name: str, source: str, steps: int = 200, page_tokens: int = 32
) -> None:
    """Decode `steps` tokens greedily after `prompt` (token ids) and write the scores of every layer's pages to `out`.

    A score is the logarithm of the attention mass of a page, mean over the query heads. `name` and `source` (what was
    run on which text) go into the file. Raises InputError if the model gives no attention, or for an empty prompt.
    """
    import torch

    if not prompt or steps < 2 or page_tokens < 1:
        found = f"{len(prompt)} tokens, {steps} steps, pages of {page_tokens}"
        allowed = "a prompt, 2 steps or more, pages of 1 token or more"
        raise InputError("nothing to record", found=found, allowed=allowed)
    pages = math.ceil((len(prompt) + steps) / page_tokens)
    rows = []
    with torch.no_grad():
        device = next(model.parameters()).device
        reply = model(input_ids=torch.tensor([prompt], device=device), use_cache=True)
        for step in range(steps):
            token = reply.logits[:, -1:].argmax(dim=-1)
            past = reply.past_key_values
            reply = model(input_ids=token, past_key_values=past, use_cache=True, output_attentions=True)
            if not reply.attentions or reply.attentions[0] is None:
                text = "the model gives no attention (Hugging Face: load it with attn_implementation='eager')"
                raise InputError(text, where=name)
            rows.append([_masses(layer, len(prompt) + step + 1, page_tokens, pages) for layer in reply.attentions])
    scores = np.array(rows, dtype=np.float32).transpose(1, 0, 2).astype(np.float16)
    metadata = {
        "score": "log_mass",
        "model": name,
        "page_tokens": page_tokens,
        "context": len(prompt) + steps,
        "source": source,
    }
    save(out, scores, metadata)


def _masses(attention: Any, context: int, page_tokens: int, pages: int) -> npt.NDArray[np.float32]:
    """Logarithms of the mass of `pages` pages; attention [1, heads, 1, tokens], of a window: of the last tokens."""
    weights = attention[0, :, -1].float().mean(dim=0).cpu().numpy()
    held = np.zeros(pages * page_tokens)
    held[context - len(weights) : context] = weights
    masses = np.log(np.maximum(held.reshape(pages, page_tokens).sum(axis=1), NO_MASS))
    masses[math.ceil(context / page_tokens) :] = -np.inf
    return np.asarray(masses, dtype=np.float32)
