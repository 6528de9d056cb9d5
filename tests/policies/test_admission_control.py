"""Admission control: who is turned away, by what it sees."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from policies.admission_control.base import AdmissionControl
from policies.admission_control.early_rejection import EarlyRejection
from policies.admission_control.queue_limit import QueueLimit
from policies.admission_control.token_limit import TokenLimit, TokenRate
from policies.build import build_policy
from policies.contract import check_policy
from policies.tables import ADMISSION_CONTROL


@dataclass
class Gate:
    """A replica (policies.admission_control.base.GateView) whose decode step takes 10 ms and 1 ms per request."""

    now: float = 0.0
    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    active_tokens: int = 0
    queue_s: float = 0.0
    own_s: float = 0.5
    decoding_s: list[float] = field(default_factory=list)
    index: int = 0

    def prefill_s(self, request: object) -> float:
        return self.own_s

    def step_s(self, seqs: int) -> float:
        return 0.01 + 0.001 * seqs

    def cached_tokens(self, keys: object, level: int | None = None) -> int:
        return 0


@dataclass
class Request:
    index: int = 0
    keys: tuple[int, ...] = (1, 2)
    input_tokens: int = 1000
    turn: int = -1
    session: int = -1
    think_s: float | None = None
    carried: bool = False


@pytest.mark.parametrize("name", ADMISSION_CONTROL)
@pytest.mark.parametrize("seed", range(3))
def test_the_contract_is_kept(name: str, seed: int) -> None:
    check_policy(ADMISSION_CONTROL[name], seed=seed, operations=500)


def test_early_rejection_adds_the_queue_and_the_prompt() -> None:
    policy = EarlyRejection(ttft="2 s")
    assert policy.admit(Request(), Gate(queue_s=1.5))
    assert not policy.admit(Request(), Gate(queue_s=1.51))
    assert not EarlyRejection(ttft=2, margin=1.1).admit(Request(), Gate(queue_s=1.5))
    assert EarlyRejection(ttft=2, margin=0.9).admit(Request(), Gate(queue_s=1.6))


def test_early_rejection_looks_at_the_steps_of_now_or_of_then() -> None:
    crowded = Gate(running=40, waiting=3, decoding_s=[9.8] * 30 + [1.0] * 10, queue_s=0.0)
    assert not EarlyRejection(tpot="50 ms").admit(Request(), crowded)  # 41 beside each other: 51 ms
    assert EarlyRejection(tpot="51.5 ms").admit(Request(), crowded)
    # In half a second 30 of them will have decoded for ten: 10, the 3 that wait, and this one remain.
    then = {"load": "then", "decode_time": "10 s"}
    assert EarlyRejection(tpot="24.5 ms", **then).admit(Request(), crowded)  # type: ignore[arg-type]
    assert not EarlyRejection(tpot="23.5 ms", **then).admit(Request(), crowded)  # type: ignore[arg-type]
    assert not EarlyRejection(tpot="50 ms", load="then", decode_time="11 s").admit(Request(), crowded)


def test_limits_are_exact() -> None:
    assert QueueLimit(waiting=2).admit(Request(), Gate(waiting=1))
    assert not QueueLimit(waiting=2).admit(Request(), Gate(waiting=2))
    busy = Gate(running=1, active_tokens=3000, prompt_tokens=1000)
    assert TokenLimit(outstanding=5000).admit(Request(), busy)
    assert not TokenLimit(outstanding=4999).admit(Request(), busy)
    assert TokenLimit(outstanding=10).admit(Request(), Gate())


def test_a_bucket_fills_at_its_rate_and_no_further() -> None:
    bucket = TokenRate(rate=100, burst=1500)
    answers = [bucket.admit(Request(), Gate(now=now)) for now in (0.0, 0.0, 4.9, 5.0, 100.0, 100.0, 105.0)]
    assert answers == [True, False, False, True, True, False, True]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "early_rejectio"}, "unknown admission_control policy.*did you mean 'early_rejection'"),
        ({"name": "early_rejection", "ttft": "0 s"}, "ttft: found '0 s'|ttft"),
        ({"name": "early_rejection", "load": "soon"}, "load: found 'soon'|load"),
        ({"name": "queue_limit", "waiting": 0}, "waiting"),
        ({"name": "token_rate", "rate": 0}, "rate"),
        ({"name": "token_limit", "tokens": 3}, "no such option"),
    ],
)
def test_wrong_options_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_policy("admission_control", spec, base_dir=Path(), path="admission_control")


def test_all_are_admission_control() -> None:
    assert all(issubclass(policy, AdmissionControl) for policy in ADMISSION_CONTROL.values())
