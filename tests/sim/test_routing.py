"""Routing in a run: what a router sees is so, and where requests go moves their latencies."""

import pytest

from hw_profiles.errors import InputError

LONG = 8000
TWO = {"profile": "h100-sxm", "replicas": 2}


@pytest.fixture
def go(run, prompt):
    """Two long prompts a second apart, then each again twice, in the other order."""

    def simulate(routing, **keywords):
        order = [1, 2, 2, 1, 2, 1]
        rows = [(10.0 * i, LONG, 4, prompt(p, LONG)) for i, p in enumerate(order)]
        return run(rows, hardware=TWO, routing=routing, tiers=[{"name": "hbm"}], **keywords).frames["requests"]

    return simulate


def test_prefix_aware_finds_what_round_robin_misses(go):
    blind, aware = go("round_robin"), go("prefix_aware")
    assert list(blind.replica) == [0, 1, 0, 1, 0, 1]
    assert list(aware.replica) == [0, 1, 1, 0, 1, 0]
    assert list(aware.hit_hbm_tokens[:2]) == [0, 0]
    assert (aware.hit_hbm_tokens[2:] > 0.9 * LONG).all()
    assert aware.ttft_s.mean() < blind.ttft_s.mean()


def test_cache_aware_does_too(go):
    assert list(go("cache_aware").replica) == [0, 1, 1, 0, 1, 0]
    assert list(go({"name": "cache_aware", "threshold": 1.0}).replica) == [0, 1, 0, 1, 0, 1]


def test_least_loaded_avoids_the_replica_that_works(run, prompt):
    rows = [(0.0, LONG, 400, prompt(1, LONG)), (1.0, 64, 2, prompt(2, 64)), (2.0, 64, 2, prompt(3, 64))]
    rows += [(2.5, 64, 2, prompt(4, 64))]
    requests = run(rows, hardware=TWO, routing="least_loaded", tiers=[{"name": "hbm"}]).frames["requests"]
    assert list(requests.replica) == [0, 1, 1, 1]


WATCH = """
import kvsim

class Watch(kvsim.Router):
    def choose(self, request, replicas):
        assert [r.index for r in replicas] == [0, 1]
        seen = [(r.running, r.waiting, r.prompt_tokens, r.active_tokens) for r in replicas]
        print(request.index, seen, [r.cached_tokens(request.keys) for r in replicas])
        return {answer}
"""


def test_what_a_router_sees(scenario, prompt, tmp_path, capsys):
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", "0"))
    rows = [(0.0, 1000, 300, prompt(1, 1000)), (0.001, 500, 300, prompt(2, 500)), (1.0, 1000, 2, prompt(1, 1000))]
    built = scenario(rows, hardware=TWO, routing=f"{tmp_path}/watch.py:Watch", tiers=[{"name": "hbm"}])
    built.run()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0] == "0 [(0, 0, 0, 0), (0, 0, 0, 0)] [0, 0]"
    assert lines[1].startswith("1 [(1, 0, 1000, 1008), ")
    index, running = lines[2].split()[0], lines[2].split()[1]
    assert (index, running) == ("2", "[(2,")
    assert "(2, 0, 0, " in lines[2]
    active = int(lines[2].split("(2, 0, 0, ")[1].split(")")[0])
    decoded = active - 1500
    assert 2 * 16 < decoded < 2 * 300
    assert lines[2].endswith("[992, 0]")


@pytest.mark.parametrize("answer", ["2", "-1", "None", "True", "0.0"])
def test_a_router_that_names_no_replica_is_named(answer, scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", answer))
    built = scenario([(2.5, 100, 2, prompt(1, 100))], hardware=TWO, routing=f"{tmp_path}/watch.py:Watch")
    with pytest.raises(
        InputError, match=r"router .*watch.py:Watch broke its contract: .* request 0, .*0 to 1, at 2.5 s"
    ):
        built.run()


def test_a_router_that_raises_is_named(scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", "1 // 0"))
    built = scenario([(0, 100, 2, prompt(1, 100))], hardware=TWO, routing=f"{tmp_path}/watch.py:Watch")
    with pytest.raises(
        InputError,
        match=r"routing policy Watch failed in choose\(request 0\): ZeroDivisionError: .*"
        r"\(watch.py, line 9, in Watch.choose\), at 0 s",
    ):
        built.run()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def choose(self, request): return 0", r"failed in choose\(request 0\): TypeError: .*positional argument"),
        ("def choose(self, request, replicas): raise SystemExit(0)", r"failed in choose\(request 0\): SystemExit: 0"),
        (
            "def choose(self, request, replicas): request.input_tokens = 1; return 0",
            r"broke its contract: choose\(\) changed request 0, which is for reading",
        ),
    ],
)
def test_what_else_a_router_does_wrong_is_named(body, said, scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text(f"import kvsim\n\n\nclass Watch(kvsim.Router):\n    {body}\n")
    built = scenario([(2.5, 100, 2, prompt(1, 100))], hardware=TWO, routing=f"{tmp_path}/watch.py:Watch")
    with pytest.raises(InputError, match=rf"routing policy Watch {said}.*, at 2.5 s"):
        built.run()


def test_an_index_may_be_numpys(scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text("import numpy as np\n" + WATCH.replace("{answer}", "np.argmax([0, 1])"))
    built = scenario([(0, 100, 2, prompt(1, 100))], hardware=TWO, routing=f"{tmp_path}/watch.py:Watch")
    assert list(built.run().frames["requests"].replica) == [1]


def test_the_source_of_a_router_is_part_of_the_configuration(scenario, prompt, tmp_path):
    hashes = set()
    for text in (WATCH, WATCH + "# changed\n"):
        (tmp_path / "watch.py").write_text(text.replace("{answer}", "0"))
        built = scenario([(0, 100, 2, prompt(1, 100))], hardware=TWO, routing=f"{tmp_path}/watch.py:Watch")
        hashes.add(built.run().summary["config_sha256"])
    assert len(hashes) == 2
