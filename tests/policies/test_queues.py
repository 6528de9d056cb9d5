"""Chain, Ghost and Ranked: what the eviction policies are made of."""

from policies.base import Block, TierInfo
from policies.eviction.chain import Chain, Node
from policies.eviction.ghost import Ghost
from policies.eviction.lfu import LFU


def block(key: int, size: int = 10) -> Block:
    return Block(key, 0, size, size, size)


def keys(chain: Chain) -> list[int]:
    found, node = [], chain.end
    while (following := chain.after(node)) is not None:
        node = following
        found.append(node.block.key)
    return found


def test_a_chain_keeps_order_and_bytes() -> None:
    chain = Chain()
    assert chain.after(chain.end) is None
    one, two, three = (Node(block(key, size)) for key, size in ((1, 10), (2, 20), (3, 30)))
    for node in (one, two, three):
        chain.push(node)
    chain.to_back(one)
    assert (keys(chain), chain.bytes, chain.length) == ([2, 3, 1], 60, 3)
    chain.unlink(three)
    assert (keys(chain), chain.bytes, chain.length) == ([2, 1], 30, 2)
    assert three.chain is None
    assert two.chain is chain


def test_a_block_that_grows_leaves_no_bytes_behind() -> None:
    chain, node = Chain(), Node(block(1, 10))
    chain.push(node)
    node.block.size = 16
    chain.unlink(node)
    assert chain.bytes == 0


def test_a_scan_of_a_chain_meets_what_it_moved_to_the_back() -> None:
    chain = Chain()
    for key in (1, 2):
        chain.push(Node(block(key)))
    first = chain.after(chain.end)
    assert first is not None
    chain.to_back(first)
    second = chain.after(chain.end)
    assert second is not None
    assert chain.after(second) is first
    assert chain.after(first) is None


def test_a_ghost_forgets_the_oldest_key_first() -> None:
    ghost = Ghost(25, 100)
    for key in (1, 2, 3):
        ghost.add(block(key), 10)
    assert (len(ghost), ghost.bytes) == (2, 20)
    assert [ghost.recall(key) for key in (1, 2, 3)] == [0, 10, 10]
    assert (len(ghost), ghost.bytes) == (0, 0)


def test_a_ghost_remembers_nothing_that_could_not_come_back_or_would_not_fit() -> None:
    ghost = Ghost(25, 100)
    ghost.add(block(-1), 10)
    ghost.add(block(2), 26)
    assert (len(ghost), ghost.bytes) == (0, 0)


def test_a_recalled_key_is_claimed_once() -> None:
    ghost = Ghost(None, 100)
    ghost.add(block(1), 10)
    assert not ghost.claim(1)  # a claim follows a recall
    assert ghost.recall(1) == 10
    assert ghost.recall(1) == 0
    assert ghost.claim(1)
    assert not ghost.claim(1)


def test_recalled_keys_that_never_arrive_are_forgotten() -> None:
    ghost = Ghost(None, 30)
    for key in range(5):
        ghost.add(block(key), 10)
        ghost.recall(key)
    assert [ghost.claim(key) for key in range(5)] == [False, False, True, True, True]


def test_superseded_ranks_are_cleared_away() -> None:
    policy = LFU(TierInfo("t", 100, 10))
    blocks = [block(key) for key in range(4)]
    for b in blocks:
        policy.insert(b)
    for turn in range(1_000):
        policy.touch(blocks[turn % 2])
    assert len(policy._heap) < 100
    assert [b.key for b in policy.victims()] == [2, 3, 0, 1]


def test_clearing_between_a_scan_and_the_next_neither_doubles_nor_loses_a_block() -> None:
    policy = LFU(TierInfo("t", 100, 10))
    blocks = [block(key) for key in range(4)]
    for b in blocks:
        policy.insert(b)
    scan = policy.victims()
    assert [next(scan).key for _ in range(3)] == [0, 1, 2]
    for _ in range(200):
        policy.touch(blocks[3])
    assert [b.key for b in policy.victims()] == [0, 1, 2, 3]
