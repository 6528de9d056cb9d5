"""Every block may enter."""

from __future__ import annotations

from policies.base import AdmissionPolicy, Block


class Always(AdmissionPolicy):
    """Lets every block in: what enters the tier is the offload policy's choice alone."""

    def admit(self, block: Block) -> bool:
        return True
