"""The files of a new router."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""A router for kvsim; as it stands, a request goes where the fewest requests are."""

from collections.abc import Sequence

from kvsim import ReplicaView, RequestView, Router


class $cls(Router):
    """The replica with the fewest requests, waiting and running; of equals, in turn."""

    # Keyword arguments are options of the scenario:
    #     def __init__(self, *, weight: float = 4.0) -> None:
    # is set by `routing: {name: "$name.py:$cls", weight: 2}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self) -> None:
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        """Index of the replica that gets the request; asked once, when it arrives."""
        # A request has keys (its prompt's blocks), input_tokens, session, turn and
        # think_s. A replica shows running, waiting, prompt_tokens (that have no token
        # yet), active_tokens (held in HBM) and cached_tokens(keys, level), the tokens
        # of a prompt that it need not compute (level 0: in HBM alone).
        count = len(replicas)

        def load(index: int) -> tuple[int, int]:
            replica = replicas[index]
            return replica.waiting + replica.running, (index - self._next) % count

        chosen = min(range(count), key=load)
        self._next = (chosen + 1) % count
        return chosen
'''

TEST = with_contract(
    '''\
class Asked:
    """The first request, with a prompt of two blocks."""

    index, keys, input_tokens, turn, session, think_s = 0, (1, 2), 1024, -1, -1, None


class Replica:
    """A replica with nothing cached."""

    def __init__(self, index: int, running: int, waiting: int) -> None:
        self.index, self.running, self.waiting = index, running, waiting
        self.prompt_tokens, self.active_tokens = 1000 * waiting, 1000 * running

    def cached_tokens(self, keys: tuple[int, ...], level: int | None = None) -> int:
        return 0


def test_it_goes_where_the_fewest_requests_are() -> None:
    replicas = [Replica(0, running=3, waiting=1), Replica(1, running=1, waiting=2)]
    assert $cls().choose(Asked(), replicas) == 1


def test_a_scenario_runs_with_it() -> None:
    assert run("$name.py:$cls")["requests"]["finished"] == 200


def test_it_is_least_loaded_so_far() -> None:
    """Say here what your router is to do better than counting requests."""
    mine = run("$name.py:$cls")
    fewest = run({"name": "least_loaded", "waiting_weight": 1})
    assert mine["ttft_ms"] == fewest["ttft_ms"]
    assert mine["tiers"] == fewest["tiers"]
''',
    chosen='"routing": policy',
    hardware=', "replicas": 2',
)

ROUTING = Template(POLICY, TEST)
