"""Points of work on KV pages: gather and scatter in HBM, quantisation, digests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calibration.suite.facts import Facts
from calibration.suite.point import Costs, Key, Point, point

KIB, MIB = 2**10, 2**20
PAGE_BYTES, PAGE_COUNTS, MOST_BYTES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 2 * MIB), (16, 256, 4096), 2**30
FORMATS, SIZES, HELDOUT_SIZE = ("int8", "fp8", "int4", "int2"), (2**20, 2**24, 2**27), 2**26
CODE_BYTES = {"int8": 1.03, "fp8": 1.03, "int4": 0.75, "int2": 0.5}
"""Bytes of codes and scales per number of 2 bytes (kernels of `calibration.kernels.quantise`, rows of 128)."""
MEMORY_SHARE = 0.2
"""Largest digests measured, as a share of the device memory that is free."""
DIGEST_PAGES, DIGEST_BATCHES = (256, 1024, 4096, 16384, 65536), (1, 16)


def page_points(costs: Costs) -> Iterator[Point]:
    """Scattered pages copied within HBM."""
    for size, count in itertools.product(PAGE_BYTES, PAGE_COUNTS):
        if size * count <= MOST_BYTES:
            seconds = costs.moved(2 * size * count)
            held = (size, count) == (64 * KIB, 256)
            yield point(costs, "page_copy", seconds, {"bytes": size, "pages": count}, heldout=held)


def quantise_points(costs: Costs, facts: Facts) -> Iterator[Point]:
    """Numbers (bf16) to codes and back."""
    for form, op, numbers in itertools.product(FORMATS, ("quantise", "dequantise"), (*SIZES, HELDOUT_SIZE)):
        if form != "fp8" or facts.fp8:
            seconds = costs.moved((2 + CODE_BYTES[form]) * numbers)
            held = numbers == HELDOUT_SIZE
            key: Key = {"format": form, "op": op, "numbers": numbers}
            yield point(costs, "quantise", seconds, key, heldout=held, priority=2)


def digest_points(costs: Costs, facts: Facts) -> Iterator[Point]:
    """Digests of pages (16 tokens, 8 KV heads of 128), bounds of a query's scores, the 64 best pages."""
    for pages, batch in itertools.product(DIGEST_PAGES, DIGEST_BATCHES):
        moved = {"build": pages * 16 * 2048, "score": batch * pages * 4096, "top": batch * pages * 256}
        for what, nbytes in moved.items():
            if (what == "build" and batch > 1) or nbytes > MEMORY_SHARE * facts.free_bytes:
                continue
            key: Key = {"what": what, "pages": pages, "batch": batch}
            held = pages == DIGEST_PAGES[2]
            yield point(costs, "digest", costs.moved(nbytes) + 4e-5, key, heldout=held, priority=2)
