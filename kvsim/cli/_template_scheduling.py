"""The files of a new scheduling policy."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""A scheduling policy for kvsim; as it stands, the shortest answer is served first."""

from kvsim import QueueView, Scheduler, WaitingRequest


class $cls(Scheduler):
    """By predicted output, as soon as there is room for the start of the prompt."""

    # Keyword arguments are options of the scenario:
    #     def __init__(self, *, error: float = 0.0) -> None:
    # is set by `policies: {scheduling: {name: "$name.py:$cls", error: 0.5}}`;
    # raise ValueError for a value that makes no sense. `self.error` blurs the
    # predictions: the standard deviation of log(predicted / true).

    def rank(self, request: WaitingRequest) -> float:
        """Place in the queue, lower ones first; asked when the request arrives."""
        # A request has arrival_s, input_tokens, known_tokens, predicted_tokens,
        # priority, session, turn, preemptions and cached_tokens().
        return request.predicted_tokens

    def choose(self, queue: QueueView) -> int | None:
        """Place in queue.waiting of who is admitted now; None: nobody yet."""
        # A queue has waiting (by rank), running, now, capacity_tokens, free_tokens
        # and peak_tokens(request), the most memory that will ever be held if that
        # request is admitted. When nobody runs, somebody must be admitted.
        return 0
'''

TEST = with_contract(
    '''\
def test_a_scenario_runs_with_it() -> None:
    assert run("$name.py:$cls")["requests"]["finished"] == 200


def test_it_is_shortest_first_so_far() -> None:
    """Say here what your policy is to do better than the shortest first."""
    mine = run("$name.py:$cls")
    shortest = run("shortest_first")
    assert mine["ttft_ms"] == shortest["ttft_ms"]
    assert mine["e2e_ms"] == shortest["e2e_ms"]
''',
)

SCHEDULING = Template(POLICY, TEST)
