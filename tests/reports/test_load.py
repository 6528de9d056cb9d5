import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hw_profiles.errors import InputError
from reports.kinds import write_report
from reports.load import load_run

FILES = [
    "summary.json", "scenario.yaml", "profile.json", "requests.parquet", "steps.parquet", "transfers.parquet",
    "samples.parquet",
]  # fmt: skip


def refusal(run_dir):
    with pytest.raises(InputError) as caught:
        write_report(run_dir)
    assert "\n" not in str(caught.value)
    assert not (run_dir / "report.html").exists()
    return str(caught.value)


def test_reads_what_the_tables_say(shared_run):
    run = load_run(shared_run)
    summary = json.loads((shared_run / "summary.json").read_text())
    assert run.finished.rows == summary["requests"]["finished"] == 1497
    assert run.rejected == 3
    assert len(run.arrivals) == 1500
    assert run.replicas == 4
    assert run.tiers == ("hbm", "dram")
    assert run.end_s - run.start_s == pytest.approx(summary["duration_s"], rel=0.05)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(run_dir, name):
    (run_dir / name).unlink()
    assert name in refusal(run_dir)


@pytest.mark.parametrize("name", FILES)
def test_a_corrupt_file_is_named(run_dir, name):
    (run_dir / name).write_bytes(b"\xff\xfe{[ not a file of ours")
    assert name in refusal(run_dir)


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith("parquet")])
def test_a_truncated_table_is_named(run_dir, name):
    data = (run_dir / name).read_bytes()
    (run_dir / name).write_bytes(data[: len(data) // 2])
    assert name in refusal(run_dir)


def test_another_schema_is_refused_with_the_one_we_read(run_dir):
    path = run_dir / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "kvsim-summary/2"}))
    message = refusal(run_dir)
    assert "kvsim-summary/2" in message
    assert "kvsim-summary/1" in message


def test_a_lost_column_is_named(run_dir):
    path = run_dir / "requests.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["queue_s"]), path)
    assert "queue_s" in refusal(run_dir)


def test_a_number_where_text_belongs_is_named(run_dir):
    path = run_dir / "transfers.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "link", pa.array([1] * table.num_rows)), path)
    assert "link" in refusal(run_dir)


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_text_may_be_plain_or_dictionary_encoded(run_dir):
    before = load_run(run_dir).transfers
    path = run_dir / "transfers.parquet"
    table = pq.read_table(path)
    column = table.column("link").dictionary_encode()
    pq.write_table(table.set_column(table.column_names.index("link"), "link", column), path)
    after = load_run(run_dir).transfers
    for name in ("pcie_h2d", "pcie_d2h"):
        assert before.texts["link"].mask(name).tolist() == after.texts["link"].mask(name).tolist()
        assert before.texts["link"].mask(name).any()
