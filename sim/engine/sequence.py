"""One request inside the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies.base import Block
from traces.request import Request


@dataclass(slots=True)
class Preemption:
    """What a sequence lost, and when it had that again; times in seconds, NaN for what has not come yet."""

    request: int
    replica: int
    start_s: float
    """When it was taken from the batch."""
    admit_s: float = math.nan
    """When it was looked up again."""
    load_done_s: float = math.nan
    """When what the lookup found was in HBM again."""
    load_level: int = 0
    """Level of the tier whose KV came last; HBM if it waited for none."""
    restart_s: float = math.nan
    """When the step with its first chunk was decided."""
    end_s: float = math.nan
    """When it produced its next token, or was preempted again before it did."""
    recompute_s: float = 0.0
    """Its share of the steps that computed again what it had, by tokens of its own; without what copies added."""


class Sequence:
    """A request while it is served: what it has computed, what it holds, and when things happened.

    Token counts: `known` tokens must be computed before the next token can be sampled (the prompt, plus what was
    generated before a preemption); `computed` of them have their KV. Times are seconds of simulated time.
    `keys` name the blocks of the prompt, and once its output is in them too, of that.
    `said`: keys of the blocks that hold its prompt and its output in the prompt of the next turn; empty if none does.
    """

    __slots__ = (
        "admit_s",
        "arrival_s",
        "arrived_s",
        "blocks",
        "chunk_s",
        "computed",
        "covered",
        "decode_from",
        "entered_s",
        "fetch_level",
        "fetched_s",
        "fetching",
        "filled",
        "finish_s",
        "first_token_s",
        "generated",
        "held",
        "hit_tokens",
        "index",
        "input_tokens",
        "keys",
        "known",
        "last_level",
        "leaves",
        "load_done_s",
        "load_level",
        "loss",
        "output_tokens",
        "pending",
        "place",
        "preemptions",
        "prefilled",
        "priority",
        "published",
        "queued",
        "reached",
        "recomputed",
        "replica",
        "resumed",
        "said",
        "session",
        "settled",
        "status",
        "think_s",
        "token_s",
        "turn",
    )

    def __init__(self, request: Request, keys: list[int], tiers: int, said: list[int] | None = None) -> None:
        self.index = request.index
        self.turn = request.turn
        self.session = request.session
        self.think_s = request.think_s
        self.fetch_level: int | None = None
        """Level of the tier that blocks of its own were fetched into while it queued; what is still on its way behind
        HBM is not waited for then."""
        self.fetching = 0
        """Fetches that it must wait for before it is looked up."""
        self.fetched_s = request.arrival_s
        """Until when it could not be looked up, since it had to wait for those fetches."""
        self.entered_s = request.arrival_s
        """When it came to the queue of its replica: later than it arrived if it had to be looked up somewhere first."""
        self.last_level = 0
        """Level of the tier whose KV came last, since it was looked up last."""
        self.load_level = 0
        """The same when it was first ready to run; HBM if it waited for none."""
        self.loss: Preemption | None = None
        """Its last preemption, until that is made up for."""
        self.arrival_s = request.arrival_s
        self.input_tokens = request.input_tokens
        self.output_tokens = request.output_tokens
        self.said = said or []
        # The last block of a prompt may be partial: it goes by the name that it has in the next turn.
        self.keys = self.said[: len(keys)] if said else keys
        self.known = request.input_tokens
        self.computed = 0
        self.generated = 0
        self.reached = 0
        """Tokens that it had, reused or computed, before it lost them to a preemption (with the one next to decode)."""
        self.recomputed = 0
        """Tokens that ran through the model again after a preemption."""
        self.prefilled = 0
        """Prompt and recomputed tokens that ran through the model, in all."""
        self.held: list[Block] = []
        """Cached blocks that this sequence pins, in order of the prefix."""
        self.covered = 0
        """Bytes of its KV that lie in cached blocks; the rest is reserved privately."""
        self.blocks = 0
        """Engine blocks that it holds if its memory is planned (sim.engine.footprint), until it decodes."""
        self.settled = False
        """It decodes, and its planned memory grows with its context."""
        self.published = 0
        """Tokens of the prefix whose blocks were offered to the prefix cache."""
        self.filled: list[Block] = []
        """Blocks filled by the step in progress."""
        self.pending = 0
        """Loads that it waits for."""
        self.decode_from = 0
        """The replica's decode-step count when it began to decode, less tokens computed by then."""
        self.hit_tokens = [0] * tiers
        """Prompt tokens that were reused instead of computed, by tier (nearest first)."""
        self.leaves = False
        """Another replica decodes it: its KV stays here until it has left (sim.disaggregation)."""
        self.priority = request.priority
        self.queued = 0
        self.place = 0
        """Its place in order of sending."""
        """Its place in the queue: lower ones first."""
        self.preemptions = 0
        self.resumed = 0
        """Times that it produced a token again after a preemption had cut its output."""
        self.replica = -1
        self.status = "waiting"
        self.admit_s = self.load_done_s = self.chunk_s = self.first_token_s = self.finish_s = math.nan
        self.arrived_s = 0.0
        """When the last layer of its prefix arrived, for the step in progress (layer-wise loading)."""
        self.token_s = math.nan
        """When its last token came, if it was preempted after it."""

    @property
    def carried(self) -> bool:
        """True if the next turn of its conversation has its blocks, with those of its output, in its prompt."""
        return bool(self.said)

    def ran(self, tokens: int, decided_s: float, step_s: float) -> None:
        """The next `tokens` of what is known ran in a step that was decided at `decided_s` and took `step_s`."""
        if not self.prefilled:
            self.chunk_s = decided_s
        again = max(0, min(self.computed + tokens, self.reached) - self.computed)
        if self.loss is not None:
            if math.isnan(self.loss.restart_s):
                self.loss.restart_s = decided_s
            self.loss.recompute_s += again / tokens * step_s
        self.recomputed += again
        self.computed += tokens
        self.prefilled += tokens

    @property
    def own_key(self) -> int:
        """Key of the block that holds what no other request can hit: its output, if no next turn has it."""
        return -1 - self.index
