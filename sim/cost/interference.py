"""How copies over a GPU's links slow its kernels.

Extra time of a step = hbm_s  x sum of kappa x bytes / (B_HBM T)
                     + compute_s x sum of SMs taken x time taken / (SMs T)

over the links of the GPU, with the bytes that they moved during the step, T its planned time, and hbm_s and compute_s
the parts of T that wait for HBM and for arithmetic (`sim.cost.bound`). A copied byte passes through HBM once and takes
kappa times its own share from kernels that need it; a copy kernel also holds SMs. Charged once per step by bytes moved,
not by an event per copy; what moves during the extension is not charged again (second order).

SOURCE of the form: calibration of slowdown = 1 + kappa x rate / B_HBM (+ programs / SMs for copy kernels). The factors
come from the profile (section `interference`), where they are estimates unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from hw_profiles.profile import Profile
from sim.cost.bound import Bound

DIRECTIONS = ("h2d", "d2h")


class Link(Protocol):
    """What is asked of one direction of a GPU's link."""

    name: str
    model: Any
    """Its cost; `sms`, if it has that, are the streaming multiprocessors that a copy takes."""
    busy: bool
    """True while a copy is in service."""
    started: Callable[[], None] | None
    """To be called when it turns from idle to busy."""

    def moved(self, now: float) -> float:
        """Bytes moved until `now`, those of the copy in service included."""

    def served(self, now: float) -> float:
        """Seconds until `now` in which a copy was in service."""


@dataclass(frozen=True)
class InterferenceModel:
    """kappa by direction, for copy engines and for copy kernels; B_HBM in bytes/s."""

    engine: dict[str, float]
    kernel: dict[str, float]
    hbm_bandwidth: float
    sms: int

    @classmethod
    def of(cls, profile: Profile, gpus: float = 1) -> InterferenceModel | None:
        """The profile's factors; None if it has none, so that copies cost kernels nothing. One not given is 0.

        gpus: how many copy at the same time; what their links move is counted together, so is their HBM.
        """
        if not any(path.startswith("interference.") for path in profile.entries):
            return None
        engine, kernel = (
            {d: profile.si(p) if (p := f"interference.{d}{suffix}") in profile.entries else 0.0 for d in DIRECTIONS}
            for suffix in ("", "_kernel")
        )
        return cls(engine, kernel, profile.hbm_bandwidth * gpus, profile.sms)

    def kappa(self, direction: str, sms: int) -> float:
        """The factor of copies in a direction by a copy engine (`sms` 0) or a copy kernel."""
        return (self.kernel if sms else self.engine)[direction]

    def extra_s(self, step_s: float, bound: Bound, weighted_bytes: float, sm_seconds: float) -> float:
        """Seconds that a step of `step_s` seconds (> 0) takes longer.

        weighted_bytes: sum of kappa x bytes moved; sm_seconds: sum of SMs taken x how long (s).
        """
        taken = min(1.0, sm_seconds / (self.sms * step_s))
        return bound.hbm_s * (weighted_bytes / (self.hbm_bandwidth * step_s)) + bound.compute_s * taken


class Interference:
    """What the links of one GPU move during the step in progress, and what that costs it."""

    def __init__(self, model: InterferenceModel, links: Iterable[tuple[Link, float, int]]) -> None:
        """links: each with its factor and the SMs that its copies take."""
        self._model = model
        self._watched = list(links)
        self._links = [link for link, _, _ in self._watched]
        self._before: list[tuple[float, float]] = []
        self._weighted = self._sm_seconds = 0.0
        """What was moved since the step began, when somebody asked last."""
        self.takes_sms = any(sms for _, _, sms in self._watched)
        """True if copies take multiprocessors, so that arithmetic waits for them too."""
        self.quiet = True
        """True while no copy has run since the step began."""

    def begin(self, now: float) -> bool:
        """A step begins; True if copies are under way."""
        self.quiet = True
        for link in self._links:
            if link.busy:
                self.started(now)
                return True
        return False

    def started(self, now: float) -> None:
        """A link that was idle begins to copy."""
        if self.quiet:
            self.quiet = False
            self._before = [(link.moved(now), link.served(now) if sms else 0.0) for link, _, sms in self._watched]

    def moved(self, now: float) -> bool:
        """True if anything that costs kernels was moved since the step began: see `extra_s`."""
        if self.quiet:
            return False
        weighted = sm_seconds = 0.0
        for i, (link, kappa, sms) in enumerate(self._watched):
            nbytes, seconds = self._before[i]
            weighted += kappa * (link.moved(now) - nbytes)
            if sms:
                sm_seconds += sms * (link.served(now) - seconds)
        self._weighted, self._sm_seconds = weighted, sm_seconds
        return bool(weighted or sm_seconds)

    def extra_s(self, step_s: float, bound: Bound) -> float:
        """Seconds by which a step of `step_s` is longer for what had been moved when `moved` was asked last."""
        return self._model.extra_s(step_s, bound, self._weighted, self._sm_seconds)


def direction_of(link: str) -> str:
    """Which way a link of a GPU copies, by its name: toward it ("pcie_h2d", "cxl_read") or away from it."""
    return "h2d" if link.endswith(("h2d", "read")) else "d2h"


def watch(model: InterferenceModel | None, links: Iterable[Link], started: Callable[[], None]) -> Interference | None:
    """Follow the links of a GPU whose copies cost its kernels something; None if there are none.

    `started()` is called when one of them begins to copy.
    """
    if model is None:
        return None
    costly = []
    for link in links:
        sms = getattr(link.model, "sms", 0)
        kappa = model.kappa(direction_of(link.name), sms)
        if kappa or sms:
            link.started = started
            costly.append((link, kappa, sms))
    return Interference(model, costly) if costly else None
