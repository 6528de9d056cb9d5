"""INT4 KV as in FlexGen's compression: groups of 64 values with a scale and a minimum each.

SOURCE: 4.5 bits per value by arithmetic; throughputs with it are among FlexGen's and InfiniGen's figures.
"""

from __future__ import annotations

from sim.reproduce import infinigen
from sim.reproduce.rows import Figure, Table

PAIR = (infinigen.FIG14["FlexGen"], infinigen.FIG14["FlexGen + INT4"])
TABLES = (
    Table(
        "int4",
        "InfiniGen fig. 14, FlexGen + INT4",
        "D",
        f"{infinigen.WHERE}, batch 20, 1920 + 128 tokens",
        (
            Figure(
                "seconds of the link at 12 GB/s",
                96.0,
                "s",
                PAIR[1:],
                lambda ours: ours.link_bytes("pcie_h2d") / 12e9,
            ),
            Figure(
                "bytes over the link, fp16 over 4.5 bits",
                16 / 4.5,
                "x less",
                PAIR,
                lambda full, ours: full.link_bytes("pcie_h2d") / ours.link_bytes("pcie_h2d"),
            ),
        ),
        "arithmetic",
        quick=True,
    ),
)
