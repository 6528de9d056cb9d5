"""Closed-loop clients that hold conversations: a request is sent when the one before it has been answered.

A conversation has rounds. The prompt of a round is everything said so far (the system prompt that all share, every
message and answer) and a new message, so it extends the prompt before. The next round is sent `think_time` after the
end of the round before it; after its last round a client thinks as long and begins its next conversation. Sending is
up to the simulation: the trace holds who waits for whom (`Trace.after`, `Trace.delay_s`).

SOURCE: the parameters are those of three load generators of serving engines, under one set of names.
| here | vLLM benchmarks/multi_turn | SGLang benchmark/hicache/bench_multiturn.py | LMCache multi-round-qa.py |
|---|---|---|---|
| clients | --num-clients | --num-clients | --num-users |
| conversations | num_conversations / clients | 1 | users are replaced |
| rounds | num_turns / 2 | --num-rounds | --num-rounds |
| system_tokens | common_prefix_num_tokens | 0 | --shared-system-prompt |
| first_input_tokens | prefix_num_tokens + num_tokens | --request-length | --user-history-prompt + question |
| input_tokens | prompt_input.num_tokens | --request-length | a short question |
| output_tokens | prompt_output.num_tokens | --output-length | --answer-len |
| max_parallel | clients | --max-parallel | users |
| ready_queue | fifo | --ready-queue-policy (random) | fifo |
| request_rate | none | --request-rate (over all clients) | none |
| request_gaps | | --distribution | |
| think_time | --request-rate per client | 0 s, but sending is paced | --num-users / --qps less the service time |
SGLang's first messages have --request-length tokens, later ones --sub-question-input-length if that is given.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds
from traces.draws import Numbers, Times
from traces.random import stream
from traces.request import Floats, Ints, Trace
from traces.sending import Many, SenderSpec

VERSION = 1  # part of the content hash: raise it when the same parameters give another trace
MOST_REQUESTS = 10_000_000
MOST_BLOCKS = 500_000_000


class ClientsSpec(SenderSpec):
    """Closed-loop clients; the defaults are those of SGLang's bench_multiturn.py, without its pacing.

    clients             how many, each with one request at a time
    conversations       of each client, one after the other
    rounds              of each conversation (a whole number, or a distribution; so for all lengths)
    system_tokens       at the start of every conversation, the same for all
    first_input_tokens  tokens of the first message, of this conversation only (default: as input_tokens)
    input_tokens        tokens of each later message
    output_tokens       tokens of each answer
    think_time          from the end of an answer to the next message
    ramp_up             the first messages of the clients are spread evenly over this time
    barrier             nobody begins a round before all clients have ended the one before; rounds count on over the
                        conversations of a client
    max_parallel, ready_queue, request_rate, request_gaps   how what is ready is sent (traces.sending), over all clients
    block_tokens        tokens of a prefix block: what the hash ids count; a multiple of the engine's block
    seed                fixes lengths and think times whatever the seed of the scenario is
    """

    clients: Many
    conversations: Many = 1
    rounds: Numbers = Numbers(distribution="constant", mean=5)
    system_tokens: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 0
    first_input_tokens: Numbers | None = None
    input_tokens: Numbers = Numbers(distribution="constant", mean=512)
    output_tokens: Numbers = Numbers(distribution="constant", mean=64)
    think_time: Times = Times(distribution="constant", mean=0.0)
    ramp_up: Seconds = 0.0
    barrier: Annotated[bool, Field(strict=True)] = False
    block_tokens: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 16
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> ClientsSpec:
        if self.clients * self.conversations * self.rounds.at(0.5) > MOST_REQUESTS:
            raise InputError(
                "too many requests: clients x conversations x rounds", allowed=f"{MOST_REQUESTS:,} at most"
            )
        return self


class _Rounds(NamedTuple):
    """Every request of every client, conversation after conversation; int64[n], think times in s."""

    first: Ints
    """Index of the first round of each conversation, and n at the end: int64[conversations + 1]."""
    inputs: Ints
    outputs: Ints
    think_s: Floats


def converse(spec: ClientsSpec, seed: int) -> Trace:
    """The closed-loop trace of `spec`, in order of the earliest possible arrivals.

    Conversation k of client c draws from a Philox stream of its own, round r from its r-th row, so that lengths and
    think times depend neither on other clients or rounds nor on the system; a length and a think time also stay in
    their quantile when only a mean changes. `seed` is used where the spec has none. Raises InputError.
    """
    seed = seed if spec.seed is None else spec.seed
    rounds = _draw(spec, seed)
    n, counts = len(rounds.inputs), np.diff(rounds.first)
    conversation = np.repeat(np.arange(len(counts)), counts)
    client, turns = conversation // spec.conversations, np.arange(n) - rounds.first[:-1][conversation]
    # said before this round in this conversation: messages and answers of the rounds before it
    said = np.cumsum(rounds.inputs + rounds.outputs) - rounds.outputs
    start = (said - rounds.inputs)[rounds.first[:-1]]
    tokens = spec.system_tokens + said - start[conversation]
    opens = np.concatenate(([True], client[1:] != client[:-1]))
    after = np.where(opens, -1, np.arange(n) - 1)
    delay_s = np.where(opens, np.nan, rounds.think_s[after])
    arrival_s = np.repeat(np.arange(spec.clients) * (spec.ramp_up / spec.clients), np.bincount(client))
    arrival_s += _since_start(np.where(opens, 0.0, delay_s), np.flatnonzero(opens))
    ids, offsets = _blocks(spec, tokens, conversation, len(counts))
    parameters = json.dumps(spec.model_dump(mode="json") | {"version": VERSION, "seed": seed})
    trace = Trace(
        name="clients",
        block_tokens=spec.block_tokens,
        arrival_s=arrival_s,
        input_tokens=tokens,
        output_tokens=rounds.outputs,
        hash_ids=ids,
        hash_offsets=offsets,
        content_sha256=hashlib.sha256(parameters.encode()).hexdigest(),
        source=f"clients: {spec.clients}, seed {seed}",
        session_ids=conversation,
        turns=turns,
        after=after,
        delay_s=delay_s,
        closed_loop=True,
        max_parallel=spec.max_parallel,
        sending=spec.sending(seed),
        barriers=np.arange(n) - np.flatnonzero(opens)[client] if spec.barrier else None,
    )
    return trace.select(np.argsort(arrival_s, kind="stable")).validate()


def _draw(spec: ClientsSpec, seed: int) -> _Rounds:
    """Lengths and think times of all rounds."""
    first_input = spec.first_input_tokens or spec.input_tokens
    ends, inputs, outputs, think = [0], [], [], []
    for client in range(spec.clients):
        for k in range(spec.conversations):
            count = spec.rounds.at(0.5 if spec.rounds.constant else stream(seed, "clients.rounds", client, k).random())
            if ends[-1] + count > MOST_REQUESTS:
                raise InputError("too many requests", path="clients", allowed=f"{MOST_REQUESTS:,} at most")
            rows = stream(seed, "clients.conversation", client, k).random((count, 3)).tolist()
            for r, (u_in, u_out, u_think) in enumerate(rows):
                inputs.append((spec.input_tokens if r else first_input).at(u_in))
                outputs.append(spec.output_tokens.at(u_out))
                think.append(spec.think_time.at(u_think))
            ends.append(len(inputs))
    return _Rounds(np.array(ends), np.array(inputs), np.array(outputs), np.array(think))


def _since_start(delay_s: Floats, starts: Ints) -> Floats:
    """float64[n]: sums of the delays since the first request of the client, whose own delay is 0."""
    # client by client, so that one client's times do not depend on rounding in another's
    parts = np.split(delay_s, starts[1:])
    return np.concatenate([np.cumsum(part) for part in parts])


def _blocks(spec: ClientsSpec, tokens: Ints, conversation: Ints, conversations: int) -> tuple[Ints, Ints]:
    """(hash_ids, hash_offsets): full blocks of the system prompt are everybody's, others of the conversation.

    A partial last block has an id of its own, for the round that ends in it.
    """
    size = spec.block_tokens
    shared = spec.system_tokens // size
    full, partial = tokens // size, tokens % size > 0
    counts = full + partial
    if int(counts.sum()) > MOST_BLOCKS:
        text = f"the prompts have {int(counts.sum()):,} prefix blocks of {size} tokens, {MOST_BLOCKS:,} at most"
        raise InputError(text + "; larger block_tokens need fewer", path="clients.block_tokens", found=size)
    most = np.zeros(conversations, np.int64)  # full blocks of a conversation that are its own
    np.maximum.at(most, conversation, full - shared)
    base = shared + np.cumsum(most) - most
    offsets = np.concatenate(([0], np.cumsum(counts)))
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    ids = np.where(place < shared, place, place - shared + np.repeat(base[conversation], counts))
    tails = offsets[1:][partial] - 1
    ids[tails] = shared + int(most.sum()) + np.arange(len(tails))
    return ids, offsets
