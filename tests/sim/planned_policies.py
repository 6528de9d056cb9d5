"""Policies within a sequence for tests, as a user would write them."""

from dataclasses import replace

from hw_profiles.lines import CONTEXT, Line, upto
from policies.sequence.plan import LayerPlan, LayerView, Move, SequencePolicy, Work


class Budget(SequencePolicy):
    """The newest `tokens` are kept and read."""

    def __init__(self, tokens: int = 1024) -> None:
        self.tokens = tokens

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return replace(before, kept=upto(self.tokens), attended=upto(self.tokens))


class Share(SequencePolicy):
    """A share of the prompt is kept."""

    def __init__(self, share: float = 0.2) -> None:
        self.share = share

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        kept = Line(prompt=self.share)
        return replace(before, kept=kept, attended=kept)


class Host(SequencePolicy):
    """Everything is in host memory and is loaded by every step; `ahead` of the layer or when it begins."""

    def __init__(self, ahead: bool = True, works: int = 0) -> None:
        self.when = "ahead" if ahead else "critical"
        self.works = works

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        size = layer.token_bytes
        moves = (
            Move("h2d", CONTEXT * size, when=self.when),
            Move("d2h", Line(base=size), when="async"),
        )
        works = tuple(Work("score", CONTEXT * size, launches=2) for _ in range(self.works))
        stores = (Move("d2h", CONTEXT * size, when="async"),)
        return replace(before, moves=moves, works=works, host=CONTEXT * size, prompt_moves=stores)


class Fixed(SequencePolicy):
    """Reads `size` bytes per layer in every step, whatever the sequences."""

    def __init__(self, size: float = 1e9) -> None:
        self.size = size

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return before.plus(works=[Work("weights", fixed=self.size, launches=0)])


class Gathered(SequencePolicy):
    """Everything comes from host memory, gathered at 10 GB/s by the threads of one host."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return replace(before, moves=(Move("h2d", CONTEXT * layer.token_bytes, via="gather", rate=10e9),))


class Nothing(SequencePolicy):
    """Forgets to return."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return None  # type: ignore[return-value]


class Negative(SequencePolicy):
    """Moves less than nothing."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return replace(before, moves=(Move("h2d", Line(base=-1e9)),))


class Fails(SequencePolicy):
    """Has a bug."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return replace(before, kept=upto(layer.index // 0))


class Sideways(SequencePolicy):
    """Moves in a direction that there is not."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return replace(before, moves=(Move("up", CONTEXT),))  # type: ignore[arg-type]


class Counts(SequencePolicy):
    """A number where a line is expected."""

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        return replace(before, kept=100)  # type: ignore[arg-type]
