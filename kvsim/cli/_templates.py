"""What `kvsim new policy` writes: a policy that works as it stands, and its tests. `$` names are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kvsim.cli._template_admission import ADMISSION
from kvsim.cli._template_admission_control import ADMISSION_CONTROL
from kvsim.cli._template_architecture import ARCHITECTURE
from kvsim.cli._template_eviction import EVICTION
from kvsim.cli._template_fleet import FLEET
from kvsim.cli._template_offload import OFFLOAD
from kvsim.cli._template_parts import Template
from kvsim.cli._template_placement import PLACEMENT
from kvsim.cli._template_prefetch import PREFETCH
from kvsim.cli._template_reuse import PREFIX_INDEX, REUSE
from kvsim.cli._template_routing import ROUTING
from kvsim.cli._template_scheduling import SCHEDULING
from kvsim.cli._template_sequence import KV_FORMAT, RETENTION, SELECTION
from kvsim.cli._template_sequence_moves import SEQUENCE_OFFLOAD, SEQUENCE_PREFETCH

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        "eviction": EVICTION,
        "admission": ADMISSION,
        "offload": OFFLOAD,
        "prefetch": PREFETCH,
        "routing": ROUTING,
        "scheduling": SCHEDULING,
        "fleet": FLEET,
        "admission_control": ADMISSION_CONTROL,
        "kv_format": KV_FORMAT,
        "retention": RETENTION,
        "selection": SELECTION,
        "sequence_offload": SEQUENCE_OFFLOAD,
        "sequence_prefetch": SEQUENCE_PREFETCH,
        "architecture": ARCHITECTURE,
        "reuse": REUSE,
        "prefix_index": PREFIX_INDEX,
        "placement": PLACEMENT,
    }
)
"""Files of a new policy by its family; `reuse` has two kinds, a cache of answers and an index of prefixes."""

WITHIN = ("kv_format", "retention", "selection", "sequence_offload", "sequence_prefetch")
"""Those of what happens within a sequence, which shares no blocks with others and none with tiers behind HBM."""
