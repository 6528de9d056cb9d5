"""The files of new admission control."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""Admission control for kvsim; as it stands, a replica's queue holds so many."""

from kvsim import AdmissionControl, GateView, RequestView


class $cls(AdmissionControl):
    """Turns a request away if enough wait on its replica already."""

    # Keyword arguments are options of the scenario:
    # `admission_control: {name: "$name.py:$cls", waiting: 16}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, waiting: int = 64) -> None:
        self._waiting = waiting

    def admit(self, request: RequestView, replica: GateView) -> bool:
        """Whether the request is served; asked once, when it arrives."""
        # A request has keys (its prompt's blocks), input_tokens, session, turn and
        # think_s. The replica that a router chose shows what routers see (running,
        # waiting, prompt_tokens, active_tokens, cached_tokens(keys, level)), now, and
        # what to expect: queue_s, prefill_s(request), decoding_s, step_s(requests).
        return replica.waiting < self._waiting
'''

TEST = with_contract(
    '''\
def test_without_load_everybody_is_served() -> None:
    assert run("$name.py:$cls")["requests"]["finished"] == 200


def test_a_short_queue_turns_requests_away() -> None:
    summary = run({"name": "$name.py:$cls", "waiting": 1})
    assert summary["requests"]["rejected"] > 0


def test_it_is_queue_limit_so_far() -> None:
    """Say here what your policy is to do better than counting requests."""
    mine = run({"name": "$name.py:$cls", "waiting": 1})
    shipped = run({"name": "queue_limit", "waiting": 1})
    assert mine["requests"] == shipped["requests"]
    assert mine["ttft_ms"] == shipped["ttft_ms"]
''',
    chosen='"admission_control": policy',
)

ADMISSION_CONTROL = Template(POLICY, TEST)
