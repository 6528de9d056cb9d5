"""The files of a new cache of answers, and of a new index of prefixes."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

CACHE_POLICY = '''\
"""A cache of answers for kvsim; as it stands, for prompts that come again."""

from collections import OrderedDict

from kvsim import AnsweredView, RequestView, ResponseCache


class $cls(ResponseCache):
    """Finds a prompt that is the same to the last token as one that was answered."""

    # Keyword arguments are options of the scenario:
    # `policies: {reuse: {name: "$name.py:$cls", capacity: 1000000}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, capacity: int = 1_000_000_000) -> None:
        # kvsim reads these four: bytes that it may hold, seconds of a lookup (hit or
        # miss), answers that it holds, and bytes that they take.
        self.capacity = capacity
        self.lookup_s = 1e-6
        self.entries = 0
        self.used_bytes = 0
        self._held: OrderedDict[tuple[int, int], int] = OrderedDict()

    def lookup(self, request: RequestView) -> bool:
        """True if the answer is there; the request then never reaches a GPU."""
        # A request has keys (its prompt's blocks; a key stands for all before it too),
        # input_tokens, session and turn. Prompts without keys are never the same.
        if not request.keys:
            return False
        name = request.keys[-1], request.input_tokens
        if name not in self._held:
            return False
        self._held.move_to_end(name)
        return True

    def answered(self, request: AnsweredView) -> None:
        """A request that was not found has its answer."""
        if not request.keys:
            return
        name = request.keys[-1], request.input_tokens
        nbytes = 4 * (request.input_tokens + request.output_tokens)  # of text
        if name in self._held or nbytes > self.capacity:
            return
        self._held[name] = nbytes
        self.used_bytes += nbytes
        while self.used_bytes > self.capacity:
            self.used_bytes -= self._held.popitem(last=False)[1]
        self.entries = len(self._held)
'''

CACHE_TEST = with_contract(
    '''\
def asked_again(policy: str | dict[str, Any], folder: Path) -> dict[str, Any]:
    """The summary of two questions, ten seconds apart, then the first one again."""
    lengths = {"input_length": 1500, "output_length": 50}
    questions = [(0, [1, 2, 3]), (10_000, [4, 5, 6]), (20_000, [1, 2, 3])]
    rows = [{"timestamp": ms, "hash_ids": keys, **lengths} for ms, keys in questions]
    trace = folder / "asked.jsonl"
    trace.write_text("".join(f"{json.dumps(row)}\\n" for row in rows))
    document = {**SCENARIO, "trace": str(trace), "policies": {"reuse": policy}}
    return kvsim.Scenario.from_dict(document, base_dir=HERE).run(check=True).summary


def test_a_question_is_answered_once_by_a_gpu(tmp_path: Path) -> None:
    found = asked_again("$name.py:$cls", tmp_path)["response_cache"]
    assert (found["hits"], found["bypassed_output_tokens"]) == (1, 50)


def test_an_answer_without_room_is_not_kept(tmp_path: Path) -> None:
    small = asked_again({"name": "$name.py:$cls", "capacity": 1000}, tmp_path)
    assert small["response_cache"]["hits"] == 0


def test_a_scenario_runs_with_it() -> None:
    assert run("$name.py:$cls")["requests"]["finished"] == 200


def test_it_is_response_cache_so_far(tmp_path: Path) -> None:
    """Say here what your cache is to do better than one of equal prompts."""
    mine = asked_again("$name.py:$cls", tmp_path)
    shipped = asked_again("response_cache", tmp_path)
    assert mine["ttft_ms"] == shipped["ttft_ms"]
    assert mine["e2e_ms"] == shipped["e2e_ms"]
''',
    chosen='"policies": {"reuse": policy}',
    imports="import json\n",
)

INDEX_POLICY = '''\
"""An index of prefixes for kvsim; as it stands, one message for a prompt."""

from math import ceil

from kvsim import PrefixIndex, RequestView, Visit


class $cls(PrefixIndex):
    """Is asked where the prefix of a prompt lies before a router is."""

    # Keyword arguments are options of the scenario:
    # `policies: {reuse: {name: "$name.py:$cls", key_us: 0.2}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, round_trip_us: float = 100.0, key_us: float = 1.0) -> None:
        self._round_trip_s = round_trip_us * 1e-6
        self._key_s = key_us * 1e-6

    def lookup(self, request: RequestView) -> Visit:
        """What it takes to find the longest prefix of a prompt; the request waits."""
        # A visit has seconds on the network, seconds of the server, which serves one
        # visit at a time, and keys. Tiers say what is cached, whatever is found here.
        keys = ceil(request.input_tokens / 16)
        return Visit(self._round_trip_s, 10e-6 + keys * self._key_s, keys)

    def update(self, tokens: int) -> Visit:
        """What it takes to write down so many new tokens of a prompt; nobody waits."""
        keys = tokens // 16
        return Visit(self._round_trip_s, 10e-6 + keys * self._key_s, keys)
'''

INDEX_TEST = with_contract(
    '''\
def test_requests_wait_for_it() -> None:
    slow = run({"name": "$name.py:$cls", "round_trip_us": 50_000})
    fast = run({"name": "$name.py:$cls", "round_trip_us": 0})
    assert slow["requests"]["finished"] == fast["requests"]["finished"] == 200
    assert slow["ttft_ms"]["p50"] > fast["ttft_ms"]["p50"] + 40


def test_it_is_metadata_index_in_batches_so_far() -> None:
    """Say here what your index is to do better than one message for all keys."""
    mine = run("$name.py:$cls")
    shipped = run({"name": "metadata_index", "by": "batch"})
    assert mine["ttft_ms"] == shipped["ttft_ms"]
''',
    chosen='"policies": {"reuse": policy}',
)

REUSE = Template(CACHE_POLICY, CACHE_TEST)
PREFIX_INDEX = Template(INDEX_POLICY, INDEX_TEST)
