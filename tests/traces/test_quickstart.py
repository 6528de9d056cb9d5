import gzip
import subprocess
import sys
from pathlib import Path

from traces.catalog import CATALOG, load_trace, locate
from traces.mooncake import write_mooncake
from traces.quickstart import quickstart
from traces.stats import stats

ROOT = Path(__file__).parents[2]


def test_the_sample_is_what_its_parameters_give(tmp_path):
    shipped = locate("quickstart").read_bytes()
    made = write_mooncake(quickstart(), tmp_path / "again.jsonl.gz").read_bytes()
    assert gzip.decompress(made) == gzip.decompress(shipped)
    assert made[:10] == shipped[:10]  # the gzip header; the rest may differ between builds of zlib


def test_the_documented_command_writes_it(tmp_path):
    out = tmp_path / "q.jsonl.gz"
    command = [sys.executable, "-m", "traces.quickstart", str(out)]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONHASHSEED": "99", "PATH": ""})
    assert out.read_bytes() == write_mooncake(quickstart(), tmp_path / "here.jsonl.gz").read_bytes()


def test_the_sample_is_small_and_of_the_size_it_says():
    assert locate("quickstart").stat().st_size < 300_000
    trace = load_trace("quickstart", strict=True)
    assert trace.content_sha256 == CATALOG["quickstart"].sha256
    figures = stats(trace.validate())
    assert figures["requests"] == 1_500
    assert 540 < figures["duration_s"] < 660
    assert 4_000 < figures["input_mean"] < 6_000
    assert 0.40 < figures["ideal_hit_ratio"] < 0.50
    assert figures["input_max"] + figures["output_max"] < 131_072  # context of the model of the example
