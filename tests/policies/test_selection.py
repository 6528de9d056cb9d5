"""Selection within a sequence: what holds for every policy."""

from dataclasses import replace
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import upto
from policies.selection.pqcache import PQCache
from policies.sequence.plan import FULL, Form
from policies.tables import SELECTION
from tests.policies.selection_cases import layer, model, moved

BIG = {"arkvale": {"budget": 32768}, "quest": {"budget": 32768}, "pqcache": {"budget": 1.0, "recent": 1.0}}


@pytest.mark.parametrize("name", BIG)
def test_budget_of_the_whole_context_changes_nothing(name: str) -> None:
    policy = SELECTION[name](**BIG[name])
    assert all(plan is FULL for plan in model(policy, layer()))


@pytest.mark.parametrize("name", SELECTION)
def test_latent_caches_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="MLA has none"):
        SELECTION[name]().plan(layer(latent=True), FULL)


@pytest.mark.parametrize("name", [n for n in SELECTION if n != "quest"])
def test_what_was_dropped_cannot_be_recalled(name: str) -> None:
    with pytest.raises(InputError, match="drops"):
        SELECTION[name]().plan(layer(), replace(FULL, kept=upto(512), attended=upto(512)))


@pytest.mark.parametrize("name", [n for n in SELECTION if n != "quest"])
def test_bytes_on_the_link_shrink_with_the_format(name: str) -> None:
    """A format at a quarter of the bytes moves a quarter of the KV; codes and guesses stay as they are."""
    quarter = replace(FULL, form=Form(key=0.25, value=0.25))
    policy = SELECTION[name]()
    plain, packed = policy.plan(layer(), FULL), policy.plan(layer(), quarter)
    codes = 0.0
    if isinstance(policy, PQCache):
        codes = 8000 * policy.code_bytes(layer()) + policy.centroid_bytes(layer())
    assert moved(packed, "h2d", 8000, 8000) - codes == pytest.approx((moved(plain, "h2d", 8000, 8000) - codes) / 4)
    assert moved(packed, "d2h", 8000, 8000) == pytest.approx(moved(plain, "d2h", 8000, 8000) / 4)


@pytest.mark.parametrize("name", [n for n in SELECTION if n not in ("quest", "zipvl")])
def test_host_memory_holds_all_kv(name: str) -> None:
    """Every selector but Quest and ZipVL has a copy of what it may need in host memory: KV, or values for KCache."""
    view = layer()
    host = SELECTION[name]().plan(view, FULL).host.at(9000, 9000)
    share = 0.5 if name == "kcache" else 1.0
    codes = 9000 * PQCache().code_bytes(view) if name == "pqcache" else 0.0
    assert host == pytest.approx(share * 9000 * view.token_bytes + codes)


@pytest.mark.parametrize("name", SELECTION)
def test_coverage_is_that_of_the_tokens_read(name: str) -> None:
    """The stub covers as much as it reads (InfiniGen: the mass that it reads the tokens of); a layer that is left
    alone covers all."""
    policy, n = SELECTION[name](), 20_000
    read = policy.plan(layer(), FULL).attended.at(n, n)
    assert policy.coverage(layer(), n, n) == pytest.approx(0.9 if name == "infinigen" else read / n)
    if name in ("arkvale", "quest", "infinigen"):
        assert policy.coverage(layer(index=0), n, n) == 1.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arkvale", {"budget": 0}),
        ("arkvale", {"efficiency": 2.0}),
        ("infinigen", {"max_share": 0.0}),
        ("infinigen", {"prefetch": "no"}),
        ("infinigen", {"gather_rate": "3 apples"}),
        ("pqcache", {"bits": 0}),
        ("pqcache", {"hit_ratio": 1.5}),
        ("kcache", {"via": "dma"}),
        ("quest", {"page": 0}),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: found"):
        SELECTION[name](**options)
