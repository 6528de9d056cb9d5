"""`kvsim trace convert`: from the result of a benchmark to `kvsim validate`, on the command line."""

import json


def result(count=40):
    """Ten requests a second, each with a first token after 60 ms and one every 10 ms from then on."""
    return {
        "model_id": "meta-llama/Llama-3.1-8B",
        "request_rate": 10.0,
        "input_lens": [200] * count,
        "output_lens": [20] * count,
        "ttfts": [0.06] * count,
        "itls": [[0.01] * 19] * count,
        "start_times": [5000 + 0.1 * i for i in range(count)],
        "errors": [""] * count,
    }


def test_a_result_is_converted_and_validated(kvsim, folder):
    (folder / "bench.json").write_text(json.dumps(result()))
    answer = kvsim("trace", "convert", "bench.json", "--profile", "h100-sxm", "--set", "max_num_seqs=64", "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == {"path": "bench.jsonl", "requests": 40, "left_out": 0, "model": "llama-3.1-8b"}
    head = json.loads((folder / "bench.jsonl").read_text().splitlines()[0])
    assert head["engine"] == {"max_num_seqs": 64}
    answer = kvsim("validate", "bench.jsonl", "--json")
    assert answer.code == 0
    rows = {row["metric"]: row for row in json.loads(answer.out)}
    assert abs(rows["tpot_mean"]["measured"] - 0.01) < 1e-9
    assert abs(rows["tpot_mean"]["error"]) < 0.01  # the host time is taken from it
    assert all(row["target"] is None for row in rows.values())


def test_mistakes_are_one_line(kvsim, folder):
    (folder / "bench.json").write_text(json.dumps(result(2)))
    call = ("trace", "convert", "bench.json", "--profile", "h100-sxm")
    for more, message in (
        (("--set", "max_seqs=3"), "max_seqs"),
        (("--set", "max_num_seqs=0"), "max_num_seqs"),
        (("--out", "run.json"), ".jsonl"),
    ):
        answer = kvsim(*call, *more)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.strip().splitlines()) == 1
    assert not (folder / "bench.jsonl").exists()
    assert kvsim(*call).code == 0
    assert "already there" in kvsim(*call).err


def test_a_result_that_is_not_converted_is_told_how(kvsim) -> None:
    refused = kvsim("validate", "bench.json")
    assert refused.code == 2
    assert "kvsim trace convert RESULT --profile PROFILE" in refused.err
    assert refused.err.count("\n") == 1
