"""A doubly linked list of blocks whose order may change while it is being scanned."""

from __future__ import annotations

from policies.base import Block


class Node:
    """A block's place in a chain.

    size   bytes of the block when it became resident; a block that grows later keeps this figure here, so that what
           enters a chain's account leaves it again
    hits   what the policy counts between two looks at the block (a bit, or a small counter)
    """

    __slots__ = ("block", "chain", "hits", "next", "prev", "size")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.size = block.size
        self.hits = 0
        self.prev = self
        self.next = self
        self.chain: Chain | None = None


class Chain:
    """Blocks from the oldest to the newest, with their bytes. Every operation is O(1).

    `end` closes the ring: `end.next` is the oldest node, `end.prev` the newest. A scan keeps the last node that it left
    in place and asks for the one after it, so nodes that it moves to the back come up again and those left in place do
    not.
    """

    __slots__ = ("bytes", "end", "length")

    def __init__(self) -> None:
        self.end = Node(Block(0, 0, 0, 0, 0))
        self.bytes = 0
        self.length = 0

    def push(self, node: Node) -> None:
        """Add a node as the newest."""
        end = self.end
        newest = end.prev
        node.prev, node.next = newest, end
        newest.next = end.prev = node
        node.chain = self
        self.bytes += node.size
        self.length += 1

    def unlink(self, node: Node) -> None:
        """Take a node out."""
        node.prev.next, node.next.prev = node.next, node.prev
        node.chain = None
        self.bytes -= node.size
        self.length -= 1

    def to_back(self, node: Node) -> None:
        """Make a node of this chain the newest."""
        node.prev.next, node.next.prev = node.next, node.prev
        end = self.end
        newest = end.prev
        node.prev, node.next = newest, end
        newest.next = end.prev = node

    def after(self, node: Node) -> Node | None:
        """The next newer node (the oldest one after `end`), or None if there is none."""
        found = node.next
        return None if found is self.end else found
