"""Who runs next, on which pages: vLLM v1's scheduler in small, over stores that kvsim's own policies order.

The rules are those of `sim.engine` and `sim.hierarchy` (docs/architecture.md): a token budget per step, decoding
sequences first, then the one prompt that is being computed, then waiting ones in order of arrival; prefix blocks found
in HBM are shared, those found in host memory are loaded while others run; blocks that a step has filled go to the
offload policy. Nothing is preempted: the batch must fit its pages. No torch, and no clock but the one it is told.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from calibration.mini_engine.sequence import ChunkPlan, Sequence, StepPlan
from calibration.mini_engine.store import Store
from calibration.mini_engine.transfers import Transfers
from policies.base import Block, OffloadPolicy
from traces.request import Request


@dataclass(frozen=True)
class Limits:
    """Sequences that run at a time, tokens of a step, tokens of a hash block."""

    max_seqs: int
    max_tokens: int
    block_tokens: int


class Scheduler:
    """State of one engine; the copies that its decisions need are in `transfers.copies`."""

    def __init__(self, hbm: Store, host: Store | None, offload: OffloadPolicy, limits: Limits) -> None:
        self.hbm = hbm
        self.host = host
        self.limits = limits
        self.transfers = Transfers(hbm, host, offload, self._loaded)
        self.running: list[Sequence] = []
        self.loading: list[Sequence] = []
        self._page = hbm.page
        self._waiting: deque[Sequence] = deque()
        self._ready: list[Sequence] = []
        self._queued = 0

    # ---- requests

    def enqueue(self, request: Request) -> Sequence:
        """A request arrives."""
        sequence = Sequence(request, self._queued)
        self._queued += 1
        self._waiting.append(sequence)
        return sequence

    @property
    def busy(self) -> bool:
        """Whether any request is not finished."""
        return bool(self._waiting or self._ready or self.loading or self.running)

    # ---- a step

    def schedule(self) -> StepPlan | None:
        """Decide the next step and allocate its pages; None if nothing can run now."""
        decodes = tuple(sequence for sequence in self.running if not sequence.prompt_left)
        budget = self.limits.max_tokens - len(decodes)
        for sequence in decodes:
            sequence.computed += 1
            self._allocate(sequence)
        chunks = []
        for sequence in self.running:  # at most the newest is in the middle of its prompt
            if sequence.prompt_left:
                chunks.append(self._chunk(sequence, min(sequence.prompt_left, budget)))
                budget -= chunks[-1].tokens
        while budget > 0 and len(self.running) < self.limits.max_seqs:
            if not self._ready:
                if not self._look_up_next(budget):
                    break
                continue
            tokens = min(self._ready[0].prompt_left, budget)
            if not self._has_room(self._ready[0], tokens):
                break
            sequence = heapq.heappop(self._ready)
            self.running.append(sequence)
            chunks.append(self._chunk(sequence, tokens))
            budget -= tokens
        return StepPlan(decodes, tuple(chunks)) if decodes or chunks else None

    def commit(self, plan: StepPlan, now: float) -> list[Sequence]:
        """The step has run: tokens are there, filled blocks may go to host memory. Returns who has finished."""
        finished = []
        for sequence in plan.decodes:
            sequence.generated += 1
        filled: dict[int, Block] = {}
        for sequence, _, _ in plan.chunks:
            filled |= {block.key: block for block in sequence.filled}
            sequence.filled = []
            if not sequence.prompt_left:
                sequence.generated = 1
                sequence.first_token_s = now
        ending = (*plan.decodes, *(chunk.sequence for chunk in plan.chunks if chunk.sequence.generated == 1))
        for sequence in ending:
            if sequence.generated == sequence.request.output_tokens:
                sequence.finish_s = now
                self._release(sequence)
                finished.append(sequence)
        self.transfers.filled(list(filled.values()))
        return finished

    def _loaded(self, sequence: Sequence) -> None:
        """The last block that the sequence waited for is here."""
        self.loading.remove(sequence)
        heapq.heappush(self._ready, sequence)

    # ---- pages of a sequence

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self._page)

    def _has_room(self, sequence: Sequence, tokens: int) -> bool:
        return self.hbm.make_room(self._pages_for(sequence.computed + tokens) - len(sequence.pages))

    def _allocate(self, sequence: Sequence) -> None:
        """Pages for `sequence.computed` tokens."""
        need = self._pages_for(sequence.computed) - len(sequence.pages)
        if need > 0:
            if not self.hbm.make_room(need):
                raise MemoryError("the running sequences need more pages than there are: a smaller batch is needed")
            sequence.pages += self.hbm.take(need)

    def _chunk(self, sequence: Sequence, tokens: int) -> ChunkPlan:
        start = sequence.computed
        sequence.computed += tokens
        self._allocate(sequence)
        whole = sequence.request.input_tokens // self._page * self._page
        self._publish(sequence, min(sequence.computed // self._page * self._page, whole))
        return ChunkPlan(sequence, start, tokens)

    def _publish(self, sequence: Sequence, upto: int) -> None:
        """Blocks that the step fills can be found from now on, as in vLLM."""
        keys = sequence.request.hash_ids
        while sequence.published < upto:
            index = sequence.published // self.limits.block_tokens
            start = index * self.limits.block_tokens
            tokens = min(self.limits.block_tokens, upto - start)
            first, last = start // self._page, (start + tokens) // self._page
            key = keys[index]
            block = self.hbm.blocks.get(key)
            if block is None:
                block = Block(
                    key, start, tokens, (last - first) * self.hbm.page_bytes, 0, keys[index - 1] if index else None
                )
                block.pins = 1
                self._own(sequence, block, first, last, new=True)
            elif block.tokens < tokens and sequence.held and sequence.held[-1] is block:
                self._own(sequence, block, first + block.tokens // self._page, last, new=False)
            # else another sequence has computed the block meanwhile: this copy stays private, as in vLLM
            sequence.published = start + tokens

    def _own(self, sequence: Sequence, block: Block, first: int, last: int, *, new: bool) -> None:
        pages = sequence.pages[first:last]
        if new:
            self.hbm.publish(block, pages)
            sequence.held.append(block)
        else:
            self.hbm.grow(block, pages)
        sequence.owned |= set(range(first, last))
        sequence.filled.append(block)
        self.hbm.counters.stored_pages += len(pages)

    def _release(self, sequence: Sequence) -> None:
        """The request is over: its output stays cached under a key of its own, the rest of its pages is free."""
        self.running.remove(sequence)
        request = sequence.request
        whole = request.input_tokens // self._page * self._page
        kept = sequence.computed // self._page * self._page
        if kept > whole:
            first, last = whole // self._page, kept // self._page
            key, parent = -1 - request.index, request.hash_ids[-1] if request.hash_ids else None
            block = Block(key, whole, kept - whole, (last - first) * self.hbm.page_bytes, kept - whole, parent)
            self.hbm.publish(block, sequence.pages[first:last])
            sequence.owned |= set(range(first, last))
        self.hbm.give_back([page for place, page in enumerate(sequence.pages) if place not in sequence.owned])
        for block in reversed(sequence.held):
            self.hbm.unpin(block)
        if self.host is not None:
            for key in reversed(request.hash_ids):
                if key in self.host.blocks:
                    self.host.policy.release(self.host.blocks[key])

    # ---- prefixes

    def _look_up_next(self, budget: int) -> bool:
        """Find and pin the cached prefix of the head of the queue; False if there is none or memory is too short."""
        if not self._waiting:
            return False
        sequence = self._waiting[0]
        found = list(self._prefix(sequence))
        hit = sum(block.tokens for _, block in found)
        loads = [block for store, block in found if store is self.host]
        fresh = sum(len(self.hbm.pages[b.key]) for store, b in found if store is self.hbm and not b.pins)
        if loads:
            need = sum(block.tokens for block in loads) // self._page
        else:
            chunk = min(sequence.request.input_tokens - hit, budget)
            need = self._pages_for(hit + chunk) - self._pages_for(hit)
        if need > self.hbm.available - fresh:
            return False
        self._waiting.popleft()
        self._admit(sequence, found)
        if sequence.pending:
            self.loading.append(sequence)
        else:
            heapq.heappush(self._ready, sequence)
        return True

    def _prefix(self, sequence: Sequence) -> Iterator[tuple[Store, Block]]:
        """(store, block) of the longest cached prefix of whole blocks, one token at least left to compute."""
        limit, start = (sequence.request.input_tokens - 1) // self._page * self._page, 0
        for key in sequence.request.hash_ids:
            block, store = self.hbm.blocks.get(key), self.hbm
            if block is None and self.host is not None:
                block, store = self.host.blocks.get(key), self.host
                if block is not None and block.ready < block.tokens:
                    block = None
            if block is None:
                return
            # tails are nobody else's, and a document is computed whole before another may look for it
            assert block.start == start, "a block with another prefix"
            assert block.tokens == self.limits.block_tokens <= limit - start, "part of a block was found"
            yield store, block
            start += block.tokens

    def _admit(self, sequence: Sequence, found: list[tuple[Store, Block]]) -> None:
        keys = sequence.request.hash_ids
        for store, block in found:
            store.pin(block)
        for store, block in reversed(found):
            if store is self.hbm:
                block.uses += 1
                self.hbm.policy.touch(block)
        self.hbm.missed(keys)
        if self.host is not None:
            self.host.touch(reversed(keys))
            self.host.missed(keys)
        loads: list[tuple[Block, Block]] = []
        need = sum(block.tokens for store, block in found if store is self.host) // self._page
        room = self.hbm.make_room(need)
        assert room, "no room for a load that was admitted"
        for store, block in found:
            sequence.hit_tokens[store.name] = sequence.hit_tokens.get(store.name, 0) + block.tokens
            target = block
            if store is not self.hbm:
                target = Block(block.key, block.start, block.tokens, block.size, 0, block.parent)
                target.pins = 1
                target.waiters = []
                self.hbm.admit(target)
                loads.append((block, target))
            if target.waiters is not None:
                target.waiters.append(sequence)
                sequence.pending += 1
            sequence.held.append(target)
            first = len(sequence.pages)
            sequence.pages += self.hbm.pages[target.key]
            sequence.owned |= set(range(first, len(sequence.pages)))
        sequence.computed = sequence.published = sum(block.tokens for _, block in found)
        if loads:
            self.transfers.load(loads)
        self.transfers.hit([block for store, block in found if store is self.hbm])
