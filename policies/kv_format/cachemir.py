"""Cachemir: KV as ciphertexts of homomorphic encryption. A model of operation counts, not of kernels."""

from __future__ import annotations

import math
from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant
from policies.kv_format.stored import as_it_goes, needs_heads
from policies.options import nbytes as parsed_bytes
from policies.options import seconds, whole
from policies.sequence.plan import LayerPlan, LayerView, Move, SequencePolicy, Work

RESIDUE_BYTES = 8
"""Of a coefficient modulo one prime."""
SOURCE = "Cachemir (arXiv 2602.11470), from notes on it; costs of a third-party port on an RTX 5090"


class Cachemir(SequencePolicy):
    """Inference on encrypted data (CKKS), KV included: an operation-count model whose two costs are measured elsewhere.

    A ciphertext has `ring` / 2 slots and takes 2 x ring x 8 bytes per residue. Tokens are packed interleaved: as many
    as fit by the width of a layer's keys, in ciphertexts of keys and of values, so that KV is tens of times larger.
    Per token and layer, in key switches (a rotation, or the product of two ciphertexts, each far dearer than what is
    beside it):
      products with weights   one rotation and product per plaintext of slots weights, and log2 of the replicas
      attention               per ciphertext of keys and of values, one product and log2 of a head's width rotations
      append                  one rotation for keys, one for values, however long the cache is
      bootstraps              `bootstraps`, on the critical path
    Weights are plaintexts in pinned host memory (ring x 8 bytes each, one residue) that cross the link in every step;
    keys of the scheme stay in HBM. Sequences follow one another: nothing is batched, and a prompt is charged token
    by token (what it could pack is not in the notes). Times do not depend on the GPU of
    the scenario, memory and link do. With policies that choose tokens it has no meaning, as nobody can see scores.

    ring       degree of the polynomials
    residues   of a ciphertext of KV, at its level
    bootstraps per layer and token
    switch     time of a key switch, with the plaintext product beside it
    bootstrap  time of a bootstrap
    keys       HBM for Galois and bootstrapping keys

    Source: Y. Yu et al., "Cachemir" (arXiv 2602.11470). Costs by arithmetic from a port (not the authors') on an RTX
    5090: a layer of Llama-3-8B in 1916 ms, of which 6 bootstraps 1163 ms, and the rest over 6,656 products; Galois keys
    of 9.4 GiB. Residues are assumed.
    """

    weights_on_host = 1.0
    assumptions = (
        "cachemir: an operation-count model of homomorphic encryption; its two costs are of one port on one GPU, and "
        "steps of a scenario's GPU beside them are too short to matter",
    )

    def __init__(
        self,
        *,
        ring: int = 65_536,
        residues: int = 3,
        bootstraps: int = 6,
        switch: float | str = "113 us",
        bootstrap: float | str = "194 ms",
        keys: int | str = "9.4 GiB",
    ) -> None:
        self._ring = whole("ring", ring, 1024, 1 << 20)
        if ring & (ring - 1):
            raise ValueError(f"ring: found {ring}, expected a power of two")
        self._residues = whole("residues", residues, 1, 100)
        self._bootstraps = whole("bootstraps", bootstraps, 0, 1000)
        self._switch = seconds("switch", switch)
        self._bootstrap = seconds("bootstrap", bootstrap)
        self._keys = parsed_bytes("keys", keys)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, in ciphertexts."""
        needs_heads(layer, "cachemir", "it packs the keys of heads")
        if not before.form.plain:
            raise InputError("cachemir stores ciphertexts, and another policy has changed the format")
        width = layer.kv_heads * layer.head_dim
        if width > self._slots:
            raise InputError(f"cachemir: a ciphertext of {self._slots} slots holds no token of {width} values")
        each = 2 * self._ring * RESIDUE_BYTES * self._residues / (self._slots // width)
        share = each / (width * layer.element_bytes)
        plan = as_it_goes(before, replace(before.form, key=share, value=share))
        cost = self.cost(layer)
        step = Work("CKKS operations", host_seconds=cost, launches=0, source=SOURCE)
        prompt = replace(step, host_seconds=CONTEXT * cost.at(1, 1))
        weights = Move("h2d", when="ahead", fixed=self.plaintexts(layer) * self._ring * RESIDUE_BYTES, source=SOURCE)
        return replace(
            plan,
            works=(*plan.works, step),
            prompt_works=(*plan.prompt_works, prompt),
            moves=(*plan.moves, weights),
            fixed_extra=plan.fixed_extra + self._keys / layer.layers,
        )

    def plaintexts(self, layer: LayerView) -> float:
        """Plaintexts that a layer's weights fill: one per slots values."""
        return layer.weight_bytes / layer.element_bytes / self._slots

    def switches(self, layer: LayerView) -> Line:
        """Key switches of one token in one layer, by context."""
        replicas = max(1.0, self._slots / layer.hidden)
        ciphertexts = 2.0 / (self._slots // (layer.kv_heads * layer.head_dim))  # of keys and of values, per token
        attention = CONTEXT * (ciphertexts * (1 + math.log2(layer.head_dim)))
        return constant(self.plaintexts(layer) + math.log2(replicas) + 2) + attention

    def cost(self, layer: LayerView) -> Line:
        """Seconds of one token in one layer."""
        return self.switches(layer) * self._switch + constant(self._bootstraps * self._bootstrap)

    @property
    def _slots(self) -> int:
        return self._ring // 2
