"""What kvsim's offload policies may see of the mini engine."""

from __future__ import annotations

from calibration.mini_engine.store import Store
from hw_profiles.errors import InputError
from policies.base import Block


class HostView:
    """HBM, with host memory behind it (`policies.base.TierView`). It knows no prices."""

    now = 0.0

    def __init__(self, hbm: Store, host: Store | None) -> None:
        self._hbm = hbm
        self._host = host

    @property
    def name(self) -> str:
        """Name of the tier."""
        return self._hbm.name

    @property
    def below(self) -> str | None:
        """Name of host memory, if there is any."""
        return None if self._host is None else self._host.name

    @property
    def capacity(self) -> int:
        """Bytes."""
        return self._hbm.capacity * self._hbm.page_bytes

    @property
    def used(self) -> int:
        """Bytes."""
        return sum(block.size for block in self._hbm.blocks.values())

    def holds_below(self, block: Block) -> bool:
        """Whether host memory holds all of the block."""
        copy = None if self._host is None else self._host.blocks.get(block.key)
        return copy is not None and copy.tokens >= block.tokens

    def recompute_s(self, block: Block) -> float:
        """The mini engine has no prices: policies that weigh them are refused."""
        raise _no_price()

    def load_s(self, block: Block, tier: str) -> float:
        """As `recompute_s`."""
        raise _no_price()

    def store_s(self, block: Block, tier: str) -> float:
        """As `recompute_s`."""
        raise _no_price()


def _no_price() -> InputError:
    return InputError("the mini engine knows no prices: choose an offload policy that does not weigh them")
