"""Keys of blocks that left a tier, kept to recognise those that come back."""

from __future__ import annotations

from collections import OrderedDict

from policies.base import Block


class Ghost:
    """A FIFO of evicted keys with the bytes that their blocks had, bounded by `capacity` bytes (None: by the caller).

    A key comes back in two steps, because a request's miss and the insert of its block lie apart in a serving engine:
    `recall` when the miss is seen, which takes the key out of the FIFO, and `claim` when the block becomes resident.
    Recalled keys whose block never arrives are forgotten, oldest first, under the same bound. Every operation is O(1)
    amortised. Private blocks are not remembered: no other request can ask for them.
    """

    def __init__(self, capacity: int | None, recalled_capacity: int) -> None:
        self.capacity = capacity
        self.bytes = 0
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._recalled: OrderedDict[int, int] = OrderedDict()
        self._recalled_bytes = 0
        self._recalled_capacity = recalled_capacity

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, block: Block, size: int) -> None:
        """Remember a block that leaves; the oldest keys make room for it."""
        if block.private:
            return
        if self.capacity is not None:
            if size > self.capacity:
                return
            while self.bytes + size > self.capacity:
                self.pop_oldest()
        self._sizes[block.key] = size
        self.bytes += size

    def pop_oldest(self) -> None:
        """Forget the key that was added first."""
        self.bytes -= self._sizes.popitem(last=False)[1]

    def recall(self, key: int) -> int:
        """Set a remembered key apart for its return; the bytes its block had, 0 if the key is not remembered."""
        size = self._sizes.pop(key, 0)
        if size:
            self.bytes -= size
            self._recalled[key] = size
            self._recalled_bytes += size
            while self._recalled_bytes > self._recalled_capacity and len(self._recalled) > 1:
                self._recalled_bytes -= self._recalled.popitem(last=False)[1]
        return size

    def claim(self, key: int) -> bool:
        """True if the key was recalled; it is forgotten."""
        size = self._recalled.pop(key, 0)
        self._recalled_bytes -= size
        return size > 0
