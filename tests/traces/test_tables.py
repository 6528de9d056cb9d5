"""The CSV formats. The fixtures are written by hand from the documented columns."""

from dataclasses import replace

import pytest

from hw_profiles.errors import InputError
from traces.arrivals import poisson_arrivals
from traces.azure import read_azure
from traces.burstgpt import read_burstgpt
from traces.servegen import read_servegen
from traces.vidur import read_vidur

AZURE = ["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 23:59:59.9799600,4808,10"]
BURST = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", "5,ChatGPT,472,18,490,API log"]
SERVEGEN = ["request_id,timestamp,input_tokens,output_tokens", "0,5e-05,10,20", "1,1.2,15,25"]
VIDUR = ["num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio", "3772,54,3826,69.85", "2,1,3,2.0"]


def write(tmp_path, lines, end="\n"):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + end)
    return path


def test_azure_times_are_exact_and_count_from_the_first(tmp_path):
    lines = [*AZURE, "2023-11-17 00:00:00,7,1", "2023-11-17 00:00:00.9799601+00:00,3,2"]
    trace = read_azure(write(tmp_path, lines, "")).validate()
    assert trace.arrival_s.tolist() == [0.0, 0.02004, 1.0000001]
    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == ([4808, 7, 3], [10, 1, 2])
    assert (trace.name, trace.block_tokens, len(trace.hash_ids), trace.warnings) == ("t", 0, 0, ())


def test_line_ends_byte_order_mark_quotes_and_column_order_do_not_matter(tmp_path):
    path = tmp_path / "t.csv"
    content = '\ufeffGeneratedTokens, TIMESTAMP ,"ContextTokens"\r\n10,"2023-11-16 18:17:03.5",4808\r\n'
    path.write_bytes(content.encode())
    assert read_azure(path).request(0).input_tokens == 4808
    assert read_azure(path).request(0).output_tokens == 10


def test_azure_disorder(tmp_path):
    path = write(tmp_path, [*AZURE, "2023-11-16 23:59:58,7,1"])
    trace = read_azure(path).validate()
    assert trace.input_tokens.tolist() == [7, 4808]
    assert trace.arrival_s.tolist() == [0.0, 1.97996]
    assert trace.warnings == (f"{path}:3: 1 line(s) earlier than the line before; sorted by TIMESTAMP",)
    with pytest.raises(InputError, match=r"t\.csv:3: TIMESTAMP: earlier"):
        read_azure(path, strict=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2023-11-16 18:17:03.1,0,1", "ContextTokens: found '0', expected a whole number from 1"),
        ("2023-11-16 18:17:03.1,7,0", "GeneratedTokens: found '0'"),
        ("2023-11-16 18:17:03.1,-7,1", "ContextTokens: found '-7'"),
        ("2023-11-16 18:17:03.1,7.0,1", "ContextTokens: found '7.0'"),
        ("2023-11-16 18:17:03.1,,1", "ContextTokens: found ''"),
        ("2023-11-16 18:17:03.1,1_0,1", "ContextTokens: found '1_0'"),
        ("2023-11-16 18:17:03.1,\u0663,1", "ContextTokens: found"),
        ("2023-11-16 18:17:03.1,2147483648,1", "ContextTokens: found '2147483648'"),
        ("2023-11-16 18:17:03.1,7", "found 2 columns, expected 3"),
        ("2023-11-16 18:17:03.1,7,1,9", "found 4 columns, expected 3"),
        ("2023-11-31 18:17:03.1,7,1", "TIMESTAMP: found '2023-11-31 18:17:03.1', expected a time such as"),
        ("2023-11-16 25:17:03.1,7,1", "TIMESTAMP: found"),
        ("2023-11-16 18:17:60.1,7,1", "TIMESTAMP: found"),
        ("2023-11-16 18:17:03.1234567890,7,1", "TIMESTAMP: found"),
        ("2023-11-16 18:17:03+02:00,7,1", "TIMESTAMP: found"),
        ("1700158623,7,1", "TIMESTAMP: found '1700158623'"),
        ('2023-11-16 18:17:03,"7,1', "not a line of CSV"),
    ],
)
def test_a_bad_azure_line(refused, line, words):
    assert words in refused(read_azure, [*AZURE, "", line], 4, "t.csv")


def test_a_cut_line_and_a_bad_header(refused):
    assert "it may be cut off" in refused(read_azure, [*AZURE, "2023-11-16 18:1"], 3, "t.csv", end="")
    assert "0 columns 'GeneratedTokens'" in refused(read_azure, ["TIMESTAMP,ContextTokens"], 1, "t.csv")
    assert "2 columns 'TIMESTAMP'" in refused(read_azure, ["TIMESTAMP," + AZURE[0]], 1, "t.csv")


def test_a_header_alone_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(InputError, match=r"t\.csv: holds no request"):
        read_azure(write(tmp_path, AZURE[:1]))
    (tmp_path / "t.csv").write_bytes(AZURE[0].encode() + b"\n\xff\xfe,1,1\n")
    with pytest.raises(InputError, match=r"t\.csv:2: not a line of CSV in UTF-8"):
        read_azure(tmp_path / "t.csv")


def test_burstgpt_with_and_without_the_newer_columns(tmp_path):
    old = read_burstgpt(write(tmp_path, [*BURST, "45.5,GPT-4,1087,230,1317,Conversation log"]), strict=True).validate()
    newer = [
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "5,,0.9,ChatGPT,472,18,490,API log",
        "45.5,s1,3.1,GPT-4,1087,230,1317,Conversation log",
    ]
    new = read_burstgpt(write(tmp_path, newer), strict=True).validate()
    assert old.session_ids is None
    for column in ("arrival_s", "input_tokens", "output_tokens"):
        assert getattr(old, column).tolist() == getattr(new, column).tolist()
    assert new.arrival_s.tolist() == [5.0, 45.5]
    assert new.output_tokens.tolist() == [18, 230]


def test_failed_requests_are_dropped_with_one_warning(tmp_path):
    lines = [*BURST, "6,GPT-4,9,0,9,API log", "6,GPT-4,0,0,0,API log", "7,GPT-4,9,1,10,API log"]
    path = write(tmp_path, lines)
    trace = read_burstgpt(path)
    assert trace.arrival_s.tolist() == [5.0, 7.0]
    assert trace.warnings == (f"{path}:3: 2 request(s) without output, which failed; dropped",)
    with pytest.raises(InputError, match=r"t\.csv:3: a request without output: it failed"):
        read_burstgpt(path, strict=True)
    with pytest.raises(InputError, match="holds no request"):
        read_burstgpt(write(tmp_path, [BURST[0], lines[2]]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-1,m,9,1,10,API log", "Timestamp: found '-1', expected seconds, 0 or later"),
        ("nan,m,9,1,10,API log", "Timestamp: found 'nan'"),
        ("1e999,m,9,1,10,API log", "Timestamp: found '1e999'"),
        ("12:00,m,9,1,10,API log", "Timestamp: found '12:00'"),
        ("6,m,0,1,1,API log", "Request tokens: found '0'"),
        ("6,m,9,x,10,API log", "Response tokens: found 'x'"),
    ],
)
def test_a_bad_burstgpt_line(refused, line, words):
    assert words in refused(read_burstgpt, [*BURST, line], 3, "t.csv")


def test_servegen(tmp_path, refused):
    trace = read_servegen(write(tmp_path, SERVEGEN), strict=True).validate()
    assert trace.arrival_s.tolist() == [5e-05, 1.2]
    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == ([10, 15], [20, 25])
    assert "output_tokens: found '0'" in refused(read_servegen, [*SERVEGEN, "2,3.0,4,0"], 4, "t.csv")


def test_vidur_has_no_times(tmp_path, refused):
    trace = read_vidur(write(tmp_path, VIDUR), strict=True).validate()
    assert trace.arrival_s.tolist() == [0.0, 0.0]
    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == ([3772, 2], [54, 1])
    assert "no arrival times" in trace.warnings[0]
    assert poisson_arrivals(trace, 2.0, 0).warnings == ()
    other = replace(trace, warnings=("another", *trace.warnings))
    assert poisson_arrivals(other, 2.0, 0).warnings == ("another",)
    assert "num_decode_tokens: found '0'" in refused(read_vidur, [*VIDUR, "2,0,2,1"], 4, "t.csv")


TALK = [
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
    "5.0,a,3,GPT-4,10,1,11,Conversation log",
    "6.0,,2,ChatGPT,20,2,22,API log",
    "20.0,a,,GPT-4,30,3,33,Conversation log",
    "31.0,b,2,GPT-4,40,0,40,Conversation log",
    "40.0,a,9,GPT-4,50,5,55,Conversation log",
    "41.0,a,1,GPT-4,60,6,66,Conversation log",
]


def test_burstgpt_conversations(tmp_path):
    trace = read_burstgpt(write(tmp_path, TALK)).validate()
    assert trace.input_tokens.tolist() == [10, 20, 30, 50, 60]
    assert trace.session_ids.tolist() == [0, -1, 0, 0, 0]
    assert trace.turns.tolist() == [0, -1, 1, 2, 3]
    # 20 - (5 + 3); unknown, as nothing says when the one before ended; sent before the end of the one before
    assert [r.think_s for r in trace] == [12.0, None, None, 0.0, None]


def test_burstgpt_conversations_out_of_order(tmp_path):
    sorted_one = read_burstgpt(write(tmp_path, TALK))
    trace = read_burstgpt(write(tmp_path, [TALK[0], *reversed(TALK[1:])])).validate()
    assert trace.turns.tolist() == sorted_one.turns.tolist()
    assert trace.after.tolist() == sorted_one.after.tolist()


@pytest.mark.parametrize("elapsed", ["-1", "nan", "x", "1e999"])
def test_a_bad_elapsed_time(refused, elapsed):
    line = f"50.0,a,{elapsed},GPT-4,10,1,11,Conversation log"
    assert f"Elapsed time: found '{elapsed}'" in refused(read_burstgpt, [*TALK, line], 8, "t.csv")


def test_a_column_twice(refused):
    text = refused(read_burstgpt, [TALK[0] + ",Session ID", *TALK[1:]], 1, "t.csv")
    assert "2 columns 'Session ID'" in text
