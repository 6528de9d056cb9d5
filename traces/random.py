"""Independent random streams by name.

A stream depends on its seed, its name and its keys alone: drawing from one never shifts another, so variants
of a scenario see the same arrivals and lengths.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, name: str, *keys: int) -> np.random.Generator:
    """A Philox generator for (`seed`, `name`, `keys`); equal arguments give equal draws on every machine.

    SOURCE: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11): counter-based Philox streams
    with different keys are independent. The 128-bit key is a SHA-256 prefix of the arguments.
    """
    text = "\x1f".join([str(int(seed)), name, *(str(int(key)) for key in keys)])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
