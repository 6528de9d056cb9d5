"""Prefill and decode on different replicas: who decodes a request, and how its KV gets there.

A request is computed on a prefill instance as if it had one output token. Its KV then crosses a link to a decode
instance, where a second `Sequence` takes its place and decodes the rest. The prefill instance holds the KV until all of
it has left, and nothing leaves before the decode instance has memory for all of it, so a full decode pool holds up the
prefill pool.

A pair of instances has a copy engine, which sends in order of submission; what leaves an instance, and what comes to
one, shares its link (max-min fair: sim.hierarchy.network).

SOURCES: DistServe (arXiv 2401.09670: the decode instance fetches KV when it has memory for it, and the memory of the
prefill instance is the buffer meanwhile), Splitwise (arXiv 2311.18677: whole after the prompt, or by layer beside its
computation), Mooncake (arXiv 2407.00079: layer-wise prefill and transfer), SGLang's send_kv_chunk
(sgl-project/sglang, python/sglang/srt/disaggregation/prefill.py: after each chunk), vLLM's NixlConnector (blocks that
the decode instance has cached are not pulled).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sim.clock import Clock
from sim.columns import Columns
from sim.disaggregation_spec import KV_IN, KV_LINK, KV_OUT, DisaggregationSpec, PoolEngineSpec
from sim.engine.reception import Reception
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence
from sim.engine.stride import Stride
from sim.handoff import COLUMNS, Handoff
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.transfer import Transfer
from sim.inputs import Inputs
from sim.recorder import Recorder
from sim.routing import Routing
from sim.scenario import Scenario
from sim.ways import Ways
from traces.request import Request

PREFILL, DECODE = "prefill", "decode"
REASON = "handoff"
"""Why KV is copied between instances, in the table of transfers."""


class Disaggregation:
    """Hands requests from prefill to decode instances.

    ended    called with a request's sequence when it has its last token
    """

    def __init__(
        self,
        scenario: Scenario,
        inputs: Inputs,
        clock: Clock,
        recorder: Recorder,
        ways: Ways,
        tiers: int,
        ended: Callable[[Sequence], None],
    ) -> None:
        assert scenario.spec.disaggregation is not None
        self.spec: DisaggregationSpec = scenario.spec.disaggregation
        self.done = Columns(COLUMNS)
        """Requests that were handed over and have ended."""
        self.under_way: dict[int, Handoff] = {}
        """Requests that were sent and have not ended, by index."""
        self.arrived_bytes = 0
        """Bytes that came to decode instances."""
        self._scenario = scenario
        self._inputs = inputs
        self._clock = clock
        self._recorder = recorder
        self._ways = ways
        self._tiers = tiers
        self._ended = ended
        self._engines: dict[tuple[int, int], CopyEngine] = {}
        layers = inputs.model.layers
        self._groups = min(self.spec.groups, layers) if self.spec.transfer == "layer" else 1
        device = inputs.devices[KV_LINK]
        self._model = replace(device.write, bandwidth=inputs.caps[KV_OUT])
        self._unit = round(device.measured_copies[1]) if device.measured_copies else 0

    # ---- wiring

    def computes_prompts(self, replica: int) -> bool:
        """True for a prefill instance."""
        return replica < self.spec.prefill

    def limits(self, replica: int) -> PoolEngineSpec:
        """Limits of a replica's scheduler."""
        return self.spec.prefill_engine if self.computes_prompts(replica) else self.spec.decode_engine

    def finished(self, replica: int) -> Callable[[Sequence], None]:
        """What a replica calls with a sequence that has ended there."""
        return self._prefilled if self.computes_prompts(replica) else self._decoded

    def attach(self, replicas: list[Replica]) -> list[Replica]:
        """Make a decode pool of the last replicas; the first ones, which are returned, tell what they compute."""
        self.prefills, self.decodes = replicas[: self.spec.prefill], replicas[self.spec.prefill :]
        self._replicas = replicas
        self._routing = Routing(
            self._scenario, self._clock, self.decodes, self.spec.routing, path="disaggregation.routing"
        )
        for replica in self.decodes:
            replica.batch.reception = Reception(
                replica.cache, self.spec.reuse, self._placed, self._joined, self._second
            )
        if self.spec.transfer != "whole":
            for replica in self.prefills:
                replica.begun, replica.passed = self._begun, self._passed
        return self.prefills

    def _engine(self, source: int, target: int) -> CopyEngine:
        """The copy engine of a pair of instances."""
        key = (source, target)
        if key not in self._engines:
            ways = self._ways
            path = ways.kv_link(source, KV_OUT) + ways.kv_link(target, KV_IN)
            engine = CopyEngine(KV_LINK, source, self._model, path, ways.network, self._clock, self._recorder)
            self._engines[key] = engine
            ways.links.append(engine)
        return self._engines[key]

    # ---- the prefill instance

    def sent(self, seq: Sequence, request: Request) -> None:
        """A request was sent, and goes to a prefill instance: it has its first token there."""
        if seq.output_tokens > 1:
            self.under_way[seq.index] = Handoff(seq, request)
            seq.output_tokens, seq.leaves = 1, True

    def turned_away(self, seq: Sequence) -> None:
        """It is not served after all."""
        handoff = self.under_way.pop(seq.index, None)
        if handoff is not None:
            seq.output_tokens, seq.leaves = handoff.request.output_tokens, False

    def _prefilled(self, seq: Sequence) -> None:
        """A prefill instance has computed a prompt and its first token."""
        handoff = self.under_way.get(seq.index)
        if handoff is None:
            self._ended(seq)
            return
        seq.finish_s, seq.status = math.nan, "waiting"
        handoff.complete = True
        handoff.ready(seq.input_tokens)
        if handoff.heir is None:
            self._ask(handoff)
            return
        if handoff.held:
            self._replicas[handoff.target].due(handoff.heir)
        self._push(handoff)

    def _begun(self, stride: Stride) -> None:
        """A step that computes prompts begins: what it computes leaves as its layers are complete."""
        for seq, tokens in stride.chunks:
            handoff = self.under_way.get(seq.index)
            if handoff is None:
                continue
            if handoff.heir is None:
                self._ask(handoff)
            if seq.pending:
                continue  # layers of its prefix are still on their way here
            handoff.ready(seq.computed)
            self._push(handoff)
            span, upto = stride.end - stride.start, seq.computed + tokens
            for group in range(1, self._groups):
                at = stride.start + span * group / self._groups
                self._clock.at(at, partial(self._layers, handoff, upto, group))

    def _layers(self, handoff: Handoff, upto: int, group: int) -> None:
        """So many groups of layers of the step in progress are complete."""
        handoff.layers(upto, group, self._groups)
        self._push(handoff)

    def _passed(self, seq: Sequence) -> None:
        """A chunk has run that does not end its prompt."""
        handoff = self.under_way.get(seq.index)
        if handoff is not None:
            handoff.ready(seq.computed)
            self._push(handoff)

    # ---- from one to the other

    def _ask(self, handoff: Handoff) -> None:
        """Choose the decode instance, and ask it for memory."""
        request, prompt = handoff.request, handoff.prompt
        heir = handoff.heir = Sequence(request, request.hash_ids, self._tiers, request.carried_ids)
        heir.arrival_s, heir.place = prompt.arrival_s, prompt.place
        heir.generated = 1
        handoff.chosen_s = self._clock.now
        target = self._routing.choose(heir)
        handoff.target = target.index
        target.receive(heir)

    def _placed(self, heir: Sequence) -> None:
        """The decode instance has memory; copies wait until what was evicted for it has left."""
        replica, handoff = self._replicas[heir.replica], self.under_way[heir.index]
        replica.prompt_tokens -= heir.input_tokens
        handoff.held = True
        if handoff.complete:
            replica.due(heir)
        replica.cache.mover.here.when_free(partial(self._open, handoff, heir))

    def _open(self, handoff: Handoff, heir: Sequence) -> None:
        handoff.placed_s = self._clock.now
        handoff.reused = heir.published
        self._push(handoff)

    def _push(self, handoff: Handoff) -> None:
        """Send what is there and has not been sent."""
        if not handoff.open:
            return
        size = handoff.take(self._inputs.token_bytes)
        if not size:
            return
        if size == handoff.bytes:
            handoff.start_s = self._clock.now
        handoff.flying += 1
        copies = -(-size // self._unit) if self._unit else 1
        transfer = Transfer(PREFILL, DECODE, size, copies, REASON)
        self._engine(handoff.prompt.replica, handoff.target).submit(transfer, partial(self._arrived, handoff, size))

    def _arrived(self, handoff: Handoff, size: int) -> None:
        handoff.flying -= 1
        self.arrived_bytes += size
        if handoff.flying or not handoff.complete or not handoff.all_sent:
            return
        handoff.landed_s = self._clock.now
        prompt, heir = handoff.prompt, handoff.heir
        assert heir is not None
        self._replicas[prompt.replica].let_go(prompt.index)
        handoff.bequeath()
        self._replicas[heir.replica].land(heir)

    # ---- the decode instance

    def _joined(self, heir: Sequence, now: float) -> None:
        """Its first step on the decode instance was decided."""
        self.under_way[heir.index].joined_s = now

    def _second(self, heir: Sequence, end_s: float) -> None:
        """It has its first token on the decode instance."""
        self.under_way[heir.index].second_s = end_s

    def _decoded(self, heir: Sequence) -> None:
        """A request has its last token."""
        handoff = self.under_way.pop(heir.index)
        self.done.append(handoff.row())
        handoff.end()
        prefetcher = self._replicas[heir.replica].prefetcher
        if prefetcher is not None:
            prefetcher.finished(heir)
        self._ended(heir)
