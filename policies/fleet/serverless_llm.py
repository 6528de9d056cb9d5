"""Weights from host memory when somebody asks, and instances that are kept for a while."""

from __future__ import annotations

from typing import ClassVar

from policies.fleet.prewarm import Prewarm
from policies.options import seconds


class ServerlessLLM(Prewarm):
    """Starts an instance on demand, and keeps one without requests for `keep_alive`, unless its GPUs are needed.

    Weights come from host memory at the rate of the host link, which is what fast checkpoint loading gets to
    (arXiv 2401.14351, section 4); what the engine takes to make ready is `fleet.engine_init`. A model with requests and
    no idle GPU takes those of the instance that has been idle longest. Its migration of running requests, and its
    choice of the server that has a checkpoint in DRAM, are not modelled: here all hosts have all of them.
    """

    reclaims: ClassVar[bool] = True

    def __init__(self, *, keep_alive: float | str = "60 s") -> None:
        self.keep_alive = seconds("keep_alive", keep_alive)
