"""What bounds the kernels of a step that are not attention."""

from __future__ import annotations

from collections.abc import Sequence

from hw_profiles.profile import Profile
from sim.cost.bound import Bound
from sim.cost.layer import LayerCost, Product
from sim.cost.sampling import sampling_bytes


class LinearBound:
    """The matrix products of a stage and what lies between them, the output head, and sampling; remembered by work.

    head: of a stage that samples. even: every layer runs once over every token of a step.
    """

    def __init__(
        self, kinds: Sequence[LayerCost], head: Product | None, vocab: int, profile: Profile, *, even: bool
    ) -> None:
        self._kinds = kinds
        self._head = head
        self._vocab = vocab
        self._bandwidth = profile.hbm_bandwidth
        self._even = even
        self._layers: dict[tuple[int, int, int], Bound] = {}
        self._heads: dict[int, tuple[Bound, float]] = {}
        """By rows: the products, and the seconds of sampling."""

    def of(self, tokens: int, rows: int, prompt: int) -> Bound:
        """Of a step of `tokens` tokens, `prompt` of them of prompts, `rows` of which are sampled."""
        work = (tokens, 0, 0) if self._even else (tokens, rows, prompt)
        layers = self._layers.get(work)
        if layers is None:
            runs = [(kind, kind.count * often, n) for kind in self._kinds for often, n in kind.cadence.runs(*work)]
            bounds = [kind.linear_bound(n).times(times) for kind, times, n in runs]
            layers = Bound(sum(b.hbm_s for b in bounds), sum(b.compute_s for b in bounds))
            self._layers[work] = layers
        if self._head is None or not rows:
            return layers
        known = self._heads.get(rows)
        if known is None:
            known = self._head.work(rows).bound, sampling_bytes(rows, self._vocab) / self._bandwidth
            self._heads[rows] = known
        head, sampling_s = known
        return Bound(layers.hbm_s + head.hbm_s + sampling_s, layers.compute_s + head.compute_s)
