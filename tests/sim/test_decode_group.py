"""The decode group's sums and histograms against a model that looks at every sequence at every step."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.decoding import DecodeGroup
from sim.engine.sequence import Sequence
from traces.request import Request

WINDOWS = (20, 64)


class Slow:
    """The same group, sequence by sequence: [tokens with KV, tokens still to sample] of each."""

    def __init__(self, block):
        self.block = block
        self.members = {}

    def blocks_of(self, tokens):
        return -(-tokens // self.block)

    def blocks(self, steps):
        return sum(self.blocks_of(kv + steps) - self.blocks_of(kv) for kv, _ in self.members.values())

    @property
    def context(self):
        return sum(kv + 1 for kv, _ in self.members.values())

    def attended(self, window):
        return sum(min(kv + 1, window) for kv, _ in self.members.values())

    def steps_to_finish(self):
        return min(left for _, left in self.members.values())

    def advance(self, steps):
        self.members = {i: (kv + steps, left - steps) for i, (kv, left) in self.members.items()}
        finished = [i for i, (_, left) in self.members.items() if left == 0]
        for i in finished:
            del self.members[i]
        return finished


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 200), st.integers(1, 90)),
        st.tuples(st.just("advance"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("return"), st.integers(0, 99), st.integers(0, 60)),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(block=st.sampled_from([1, 2, 3, 16]), actions=ACTIONS)
def test_group_equals_the_slow_model(block, actions):
    group, slow = DecodeGroup(block, WINDOWS, lengths=True), Slow(block)
    everyone, preempted = {}, []
    for action, a, b in actions:
        if action == "join":
            seq = Sequence(Request(len(everyone), 0.0, a, b + 1), [], 1)
            seq.computed, seq.generated = a, 1
            everyone[seq.index] = seq
            group.join(seq)
            slow.members[seq.index] = (a, b)
        elif action == "advance" and slow.members:
            steps = min(a, slow.steps_to_finish(), group.steps_as_planned())
            expected = {i: slow.members[i] for i in slow.members}
            done = group.advance(steps)
            assert sorted(s.index for s in done) == sorted(slow.advance(steps))
            for seq in done:
                assert seq.generated == seq.output_tokens
                assert seq.computed == expected[seq.index][0] + steps
        elif action == "leave" and slow.members:
            index = list(slow.members)[a % len(slow.members)]
            seq = everyone[index]
            kv, left = slow.members.pop(index)
            gained = group.leave(seq)
            assert gained == kv - seq.computed
            seq.computed += gained
            seq.generated += gained
            assert seq.output_tokens - seq.generated == left
            preempted.append(seq)
        elif action == "return" and preempted:  # after its recomputation, which sampled one more token
            seq = preempted.pop(a % len(preempted))
            if seq.output_tokens - seq.generated > 1:
                seq.computed += 1
                seq.generated += 1
                group.join(seq)
                slow.members[seq.index] = (seq.computed, seq.output_tokens - seq.generated)
        compare(group, slow, everyone)


def compare(group, slow, everyone):
    assert group.count == len(slow.members)
    assert group.context == slow.context
    assert group.longest == max((kv + 1 for kv, _ in slow.members.values()), default=0)
    assert {i for i, seq in everyone.items() if seq in group} == set(slow.members)
    windowed = group.windowed
    assert [w.tokens for w in windowed] == [slow.attended(window) for window in WINDOWS]
    if not slow.members:
        return
    planned = min(group.steps_as_planned(), slow.steps_to_finish())
    for (tokens, growing), window in zip(windowed, WINDOWS, strict=True):
        later = Slow(1)
        later.members = {i: (kv + planned, left) for i, (kv, left) in slow.members.items()}
        assert tokens + growing * planned == later.attended(window)
    assert group.steps_to_finish() == slow.steps_to_finish()
    for steps in (0, 1, 2, 5, 16, 17, 40, 100):
        assert group.blocks(steps) == slow.blocks(steps), steps
    for free in (0, 1, 3, 10, 50):
        # the first step has its blocks already; `free` more must do for the steps after it
        steps = group.steps_within(free, 10_000)
        assert [group.steps_within(free, most) for most in (1, steps, steps + 1)] == [min(1, steps), steps, steps]
        assert slow.blocks(steps) - slow.blocks(1) <= free < slow.blocks(steps + 1) - slow.blocks(1)


def test_an_empty_group_does_not_advance():
    assert DecodeGroup(16).advance(5) == []
