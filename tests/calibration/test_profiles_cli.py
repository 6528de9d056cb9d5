"""`kvsim calibrate show` and `check`."""

import html
import json
import os
import re
from pathlib import Path

import pytest

from calibration.shipped import SHIPPED, folder_of
from hw_profiles.documents import read_document
from hw_profiles.loader import load_profile
from hw_profiles.yaml_io import dump_yaml
from kvsim.cli.main import run

REPOSITORY = Path(__file__).parents[2]
TRACES = os.environ.get("KVSIM_TRACES")
DATA = Path(TRACES).parent if TRACES else REPOSITORY.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not folder_of(SHIPPED["rtx-4090"], DATA).is_dir(), reason=f"no kernel tables in {DATA}")


def test_show_compares(capsys) -> None:
    assert run(["calibrate", "show", "h200", "a10"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"tiers\.hbm\.peak\s+4\.80 TB/s\s+600 GB/s", text)
    assert "kernels.gemm_bf16" in text
    assert run(["calibrate", "show", "rtx-4090", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["rtx-4090"]
    assert found["kind"] == "public_fit"
    assert found["values"]["capacity.sms"] == 128
    assert found["heldout"]["decode_attn"]["mape"] < 0.08


@needs_data
def test_show_draws_the_points_behind_a_fit(tmp_path: Path, capsys) -> None:
    assert run(["calibrate", "show", "rtx-4090", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(f"report: {tmp_path / 'profiles.html'}\n")
    page = (tmp_path / "profiles.html").read_text()
    assert page.count('<div class="chart"') == 2  # of all kernels, and of the one that is picked: not one for each
    for text in (
        "rtx-4090: errors by kernel",
        "fitted to public measurements",
        "held out",
        "fitted",
        "predicted above measured (%)",
        "kernels.decode_attn",
    ):
        assert text in page, text
    assert "no measurements at hand" not in page


def test_show_without_tables_says_so(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("KVSIM_DATA", str(tmp_path / "none"))
    monkeypatch.delenv("KVSIM_TRACES", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("calibration.data.__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert run(["calibrate", "show", "h100-sxm", "--out", str(tmp_path)]) == 0
    assert "no measurements at hand: set KVSIM_DATA" in (tmp_path / "profiles.html").read_text()


def test_a_page_of_estimates_says_that_nobody_measured_them(tmp_path: Path, capsys) -> None:
    assert run(["calibrate", "show", "h200", "mi300x", "--out", str(tmp_path)]) == 0
    page = html.unescape((tmp_path / "profiles.html").read_text())
    assert "none of their kernels was measured" in page
    row = re.search(r'<tr><th scope="row">mi300x</th>(.*?)</tr>', page, re.DOTALL)
    assert row is not None
    for text in ("estimated from datasheets", "kernels of h100-sxm", "none was measured"):
        assert text in row[1]


@pytest.mark.parametrize("name", ["h100-sxm", "b200-sglang", "mi300x"])
def test_shipped_profiles_pass(name: str, capsys) -> None:
    assert run(["calibrate", "check", name]) == 0
    assert capsys.readouterr().out.startswith(load_profile(name).source)
    assert run(["calibrate", "check", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == name


def test_faster_than_its_datasheet(tmp_path: Path, capsys) -> None:
    document, _ = read_document(REPOSITORY / "hw_profiles" / "profiles" / "h200.yaml")
    document["kernels"]["decode_attn"]["bandwidth"].update(v=9000, lo=8000, hi=9900)
    file = tmp_path / "mine.yaml"
    file.write_text(dump_yaml(document))
    assert run(["calibrate", "check", str(file)]) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"kernels\.decode_attn\.bandwidth: faster than the datasheet, found '9\.00 TB/s', expected at most 4\.80", said
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema: kvsim-hw/9\n", "schema: found 'kvsim-hw/9', expected kvsim-hw/1"),
        ("[1, 2]", "found a list, expected a mapping"),
        ("schema: kvsim-hw/1\nkind: [", "not valid YAML"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, capsys, text: str, problem: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert run(["calibrate", "check", str(file)]) == 2
    said = capsys.readouterr()
    assert problem in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_uncertainty_of_a_run(tmp_path: Path, capsys) -> None:
    scenario = REPOSITORY / "examples" / "quickstart.yaml"
    short = ["--set", "trace={generate: {requests: 6, rate: 5}}"]
    out = tmp_path / "out"
    code = run(["run", str(scenario), "--uncertainty", "3", "--out", str(out), *short])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "bands over 3 machines drawn from the intervals" in said.out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["uncertainty"]["runs"] == 3
    assert all(len(metric["band"]) == 2 for metric in summary["metrics"] if metric["key"].startswith("tpot"))
    assert "5 to 95 % over machines" in (out / "report.html").read_text()
