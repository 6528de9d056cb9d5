"""The recorder on a tiny decoder of random weights: what it writes is the attention of one full pass."""

from __future__ import annotations

import json

import numpy as np
import pytest

from traces.importance.recorded import Recorded

PROMPT, STEPS, PAGE = 43, 12, 8
RECORD = f"""
import json, sys, torch
from pathlib import Path
from calibration.record_importance import record
from calibration.tiny_decoder import TinyDecoder

model = TinyDecoder(layers=3, seed=5)
tokens = [i * i % 97 for i in range({PROMPT})]
record(model, tokens, Path(sys.argv[1]), name="tiny", source="random weights", steps={STEPS}, page_tokens={PAGE})
for _ in range({STEPS}):
    tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
whole = model(torch.tensor([tokens]), output_attentions=True).attentions
print(json.dumps([layer[0].mean(dim=0).tolist() for layer in whole]))
"""
SILENT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from calibration.record_importance import record
from calibration.tiny_decoder import TinyDecoder
from hw_profiles.errors import InputError

class Silent(TinyDecoder):
    def __call__(self, *args, **options):
        return super().__call__(*args, **options | {"output_attentions": False})

for prompt in ([1, 2], []):
    try:
        record(Silent(), prompt, Path(sys.argv[1]), name="silent", source="-")
    except InputError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def done(gpu_python, tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "scores.npz"
    process = gpu_python("-c", RECORD, str(path))
    assert process.returncode == 0, process.stderr
    return Recorded.load(path), np.array(json.loads(process.stdout))


def test_scores_are_the_attention_of_one_full_pass(done):
    """Decoding with a cache and recording each step gives the rows of a causal pass over the whole text."""
    recorded, attention = done
    pages = -(-(PROMPT + STEPS) // PAGE)
    assert recorded.scores.shape == (3, STEPS, pages)
    for step in range(STEPS):
        count = PROMPT + step + 1
        row = np.zeros((3, pages * PAGE))
        row[:, :count] = attention[:, count - 1, :count]
        mass = row.reshape(3, pages, PAGE).sum(axis=2)
        assert np.exp(recorded.scores[:, step]) == pytest.approx(mass, rel=4e-3)
    first = -(-(PROMPT + 1) // PAGE)
    assert np.isneginf(recorded.scores[:, 0, first:]).all()
    assert np.isfinite(recorded.scores[:, -1]).all()


def test_a_recording_answers_what_policies_ask(done):
    recorded, _ = done
    context = PROMPT + STEPS
    assert recorded.metadata["context"] == context
    assert "random weights" in recorded.about
    assert 0 < recorded.coverage(2 * PAGE, context) < recorded.coverage(4 * PAGE, context) < 1
    assert recorded.recalls(2, 2, PAGE).at(context, 0) >= recorded.recalls(2, 4, PAGE).at(context, 0)
    assert 0 < recorded.keys_for(0.9).at(context, 0) <= context


def test_what_cannot_be_recorded_is_refused(gpu_python, tmp_path):
    process = gpu_python("-c", SILENT, str(tmp_path / "scores.npz"))
    lines = process.stdout.splitlines()
    assert len(lines) == 2, process.stderr
    assert lines[0].startswith("silent: the model gives no attention")
    assert lines[1].startswith("nothing to record, found '0 tokens")
    assert not (tmp_path / "scores.npz").exists()


def test_the_verb_records_and_says_what_to_write_into_a_scenario(gpu_python, tmp_path):
    (tmp_path / "text.txt").write_text("Tokens of the tiny decoder are bytes: 42 of them." * 3)
    command = ["-m", "kvsim", "calibrate", "record-importance", "tiny", "--prompt", str(tmp_path / "text.txt")]
    process = gpu_python(*command, "--steps", "5", "--page-tokens", "8", "--out", str(tmp_path / "a.npz"))
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == f"importance: {{name: recorded, path: {tmp_path / 'a.npz'}}}"
    recorded = Recorded.load(tmp_path / "a.npz")
    assert (recorded.context, recorded.page_tokens, recorded.scores.shape[1]) == (3 * 49 + 5, 8, 5)
    assert recorded.metadata["source"] == "text.txt, greedy"
    wrong = gpu_python(*command[:-1], str(tmp_path / "none.txt"))
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"error: {tmp_path / 'none.txt'}: cannot be read as text")
