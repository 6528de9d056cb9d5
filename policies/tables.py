"""The explicit tables of policies by family: one line per policy, nothing is discovered."""

from __future__ import annotations

from policies.admission.always import Always
from policies.admission.by_size import BySize
from policies.admission.second_hit import SecondHit
from policies.admission_control.base import AdmissionControl
from policies.admission_control.early_rejection import EarlyRejection
from policies.admission_control.none import NoAdmissionControl
from policies.admission_control.queue_limit import QueueLimit
from policies.admission_control.token_limit import TokenLimit, TokenRate
from policies.architecture.base import Architecture
from policies.architecture.block_transformer import BlockTransformer
from policies.architecture.cla import CrossLayerAttention
from policies.architecture.cross_layer import CrossLayerSharing
from policies.architecture.heads import GroupedQuery, MultiQuery
from policies.architecture.lckv import LayerCondensed
from policies.architecture.mla import LatentAttention
from policies.architecture.none import AsItIs
from policies.architecture.yoco import YouOnlyCacheOnce
from policies.base import AdmissionPolicy, EvictionPolicy, OffloadPolicy, PrefetchPolicy
from policies.eviction.arc import ARC
from policies.eviction.belady import Belady
from policies.eviction.clock import Clock
from policies.eviction.fifo import FIFO
from policies.eviction.gdsf import GDSF
from policies.eviction.length_aware import LengthAware
from policies.eviction.lfu import LFU
from policies.eviction.lru import LRU
from policies.eviction.lru_k import LRUK
from policies.eviction.queue_aware import QueueAware
from policies.eviction.s3fifo import S3FIFO
from policies.eviction.sieve import Sieve
from policies.eviction.ttl import TTL
from policies.eviction.two_queue import TwoQueue
from policies.eviction.workload_aware import WorkloadAware
from policies.fleet.base import FleetPolicy
from policies.fleet.gpu_sharing import GpuSharing
from policies.fleet.none import NoScaling
from policies.fleet.predictive import Predictive
from policies.fleet.scheduled import Scheduled
from policies.fleet.serverless_llm import ServerlessLLM
from policies.fleet.target_utilization import TargetUtilization
from policies.fleet.warmserve import WarmServe
from policies.kv_format.cachemir import Cachemir
from policies.kv_format.fp8 import FP8
from policies.kv_format.int4 import Int4
from policies.kv_format.int8 import Int8
from policies.kv_format.kivi import KIVI
from policies.kv_format.kvcomp import KVComp
from policies.kv_format.none import NoFormat
from policies.kv_format.quarot import QuaRot
from policies.kv_format.think import ThinK
from policies.kv_format.zipcache import ZipCache
from policies.offload.by_cost import ByCost
from policies.offload.flexgen import FlexGen
from policies.offload.host_kv import HostKV
from policies.offload.none import NoOffload
from policies.offload.uvm import UVM
from policies.offload.write_back import WriteBack
from policies.offload.write_through import WriteThrough
from policies.offload.write_through_selective import WriteThroughSelective
from policies.placement.base import Placement
from policies.placement.fixed import HostOnly, Proportional, Static
from policies.placement.lru import LeastRecentlyAttended
from policies.placement.recency import AttentionRecency
from policies.prefetch.l2 import L2
from policies.prefetch.look_ahead import LookAhead
from policies.prefetch.next_turn import NextTurn
from policies.prefetch.none import NoPrefetch
from policies.prefetch.on_arrival import OnArrival
from policies.prefetch.popularity import Popularity
from policies.retention.audiokv import AudioKV
from policies.retention.baklava import BaKlaVa
from policies.retention.bct import BoundedCache
from policies.retention.corm import CORM
from policies.retention.elastic import ElasticCache
from policies.retention.h2o import H2O
from policies.retention.kvcrush import KVCrush
from policies.retention.lacache import LaCache
from policies.retention.less import LESS
from policies.retention.none import NoRetention
from policies.retention.scissorhands import Scissorhands
from policies.retention.snapkv import SnapKV
from policies.retention.snapstream import SnapStream
from policies.retention.streaming_llm import StreamingLLM
from policies.retention.xkv import XKV
from policies.retention.zigzagkv import ZigZagKV
from policies.reuse.base import Reuse
from policies.reuse.instcache import InstCache
from policies.reuse.metadata_index import MetadataIndex
from policies.reuse.response_cache import ExactResponseCache
from policies.routing.approximate_prefix import ApproximatePrefix
from policies.routing.base import Router
from policies.routing.cache_aware import CacheAware
from policies.routing.kv_load_aware import KVLoadAware
from policies.routing.least_loaded import LeastLoaded
from policies.routing.power_of_two import PowerOfTwo
from policies.routing.prefix_aware import PrefixAware
from policies.routing.round_robin import RoundRobin
from policies.routing.session_sticky import SessionSticky
from policies.scheduling.base import Scheduler
from policies.scheduling.fcfs import FirstCome
from policies.scheduling.mc_sf import MemoryConstrainedShortestFirst
from policies.scheduling.memory_aware_fcfs import MemoryAwareFirstCome
from policies.scheduling.shortest_first import ShortestFirst
from policies.selection.arkvale import ArkVale
from policies.selection.infinigen import InfiniGen
from policies.selection.kcache import KCache
from policies.selection.pqcache import PQCache
from policies.selection.quest import Quest
from policies.selection.zipvl import ZipVL

EVICTION: dict[str, type[EvictionPolicy]] = {
    "lru": LRU,
    "fifo": FIFO,
    "lfu": LFU,
    "clock": Clock,
    "sieve": Sieve,
    "s3fifo": S3FIFO,
    "arc": ARC,
    "2q": TwoQueue,
    "lru_k": LRUK,
    "gdsf": GDSF,
    "length_aware": LengthAware,
    "ttl": TTL,
    "workload_aware": WorkloadAware,
    "queue_aware": QueueAware,
}

EVICTION_BOUNDS: dict[str, type[EvictionPolicy]] = {
    "belady": Belady,
}
"""Bounds to compare eviction policies with: they need `TierInfo.next_use`, the future of the trace."""

UNBOUNDED = "unbounded"
"""The other bound. It is a capacity, not a policy: naming it as one is refused with that reason."""

ADMISSION: dict[str, type[AdmissionPolicy]] = {
    "always": Always,
    "by_size": BySize,
    "second_hit": SecondHit,
}

OFFLOAD: dict[str, type[OffloadPolicy]] = {
    "none": NoOffload,
    "write_through": WriteThrough,
    "write_through_selective": WriteThroughSelective,
    "write_back": WriteBack,
    "by_cost": ByCost,
}

PREFETCH: dict[str, type[PrefetchPolicy]] = {
    "none": NoPrefetch,
    "on_arrival": OnArrival,
    "look_ahead": LookAhead,
    "next_turn": NextTurn,
    "popularity": Popularity,
}

ROUTING: dict[str, type[Router]] = {
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "prefix_aware": PrefixAware,
    "cache_aware": CacheAware,
    "approximate_prefix": ApproximatePrefix,
    "power_of_two": PowerOfTwo,
    "session_sticky": SessionSticky,
    "kv_load_aware": KVLoadAware,
}

FLEET: dict[str, type[FleetPolicy]] = {
    "none": NoScaling,
    "target_utilization": TargetUtilization,
    "predictive": Predictive,
    "scheduled": Scheduled,
    "warmserve": WarmServe,
    "serverless_llm": ServerlessLLM,
    "gpu_sharing": GpuSharing,
}
"""Scaling, which a scenario names under `fleet.scaling`, and below it what is for several models: `fleet.prewarm`."""

ADMISSION_CONTROL: dict[str, type[AdmissionControl]] = {
    "none": NoAdmissionControl,
    "early_rejection": EarlyRejection,
    "queue_limit": QueueLimit,
    "token_limit": TokenLimit,
    "token_rate": TokenRate,
}

SCHEDULING: dict[str, type[Scheduler]] = {
    "fcfs": FirstCome,
    "memory_aware_fcfs": MemoryAwareFirstCome,
    "shortest_first": ShortestFirst,
    "mc_sf": MemoryConstrainedShortestFirst,
}
"""Whom an engine admits next: of a whole replica, named under `policies.scheduling`."""

REUSE: dict[str, type[Reuse]] = {
    "response_cache": ExactResponseCache,
    "instcache": InstCache,
    "metadata_index": MetadataIndex,
}

PLACEMENT: dict[str, type[Placement]] = {
    "host_only": HostOnly,
    "static": Static,
    "proportional": Proportional,
    "least_recently_attended": LeastRecentlyAttended,
    "attention_recency": AttentionRecency,
}
"""Pages of a sequence in HBM or host memory, both read at once: of `kvsim place` alone, which has no engine."""

KV_FORMAT: dict[str, type] = {
    "none": NoFormat,
    "fp8": FP8,
    "int8": Int8,
    "int4": Int4,
    "kivi": KIVI,
    "quarot": QuaRot,
    "zipcache": ZipCache,
    "think": ThinK,
    "kvcomp": KVComp,
    "cachemir": Cachemir,
}
RETENTION: dict[str, type] = {
    "none": NoRetention,
    "h2o": H2O,
    "streaming_llm": StreamingLLM,
    "snapkv": SnapKV,
    "less": LESS,
    "elastic": ElasticCache,
    "scissorhands": Scissorhands,
    "corm": CORM,
    "snapstream": SnapStream,
    "bct": BoundedCache,
    "lacache": LaCache,
    "kvcrush": KVCrush,
    "xkv": XKV,
    "zigzagkv": ZigZagKV,
    "baklava": BaKlaVa,
    "audiokv": AudioKV,
}
SELECTION: dict[str, type] = {
    "arkvale": ArkVale,
    "infinigen": InfiniGen,
    "pqcache": PQCache,
    "kcache": KCache,
    "quest": Quest,
    "zipvl": ZipVL,
}
SEQUENCE_OFFLOAD: dict[str, type] = {
    "host_kv": HostKV,
    "flexgen": FlexGen,
    "uvm": UVM,
}
"""Offload within a sequence: named under `policies.offload` too, in place of that of the tiers."""
SEQUENCE_PREFETCH: dict[str, type] = {
    "l2": L2,
}
"""Prefetch within a step: named under `policies.prefetch` too, in place of that of the tiers."""
ARCHITECTURE: dict[str, type[Architecture]] = {
    "none": AsItIs,
    "cla": CrossLayerAttention,
    "lckv": LayerCondensed,
    "cross_layer": CrossLayerSharing,
    "yoco": YouOnlyCacheOnce,
    "block_transformer": BlockTransformer,
    "gqa": GroupedQuery,
    "mqa": MultiQuery,
    "mla": LatentAttention,
}
"""Transforms of the model, applied before anything else."""

SEQUENCE_FAMILIES: dict[str, dict[str, type]] = {
    "kv_format": KV_FORMAT,
    "retention": RETENTION,
    "selection": SELECTION,
    "offload": SEQUENCE_OFFLOAD,
    "prefetch": SEQUENCE_PREFETCH,
}
"""Policies of what happens within a sequence (`policies.sequence.plan`), in the order in which they plan."""

FAMILIES: dict[str, dict[str, type]] = {
    "eviction": {**EVICTION, **EVICTION_BOUNDS},
    "admission": dict(ADMISSION),
    "offload": dict(OFFLOAD),
    "prefetch": dict(PREFETCH),
}

EVERY_FAMILY: dict[str, dict[str, type]] = {
    **FAMILIES,
    "routing": dict(ROUTING),
    "admission_control": dict(ADMISSION_CONTROL),
    "scheduling": dict(SCHEDULING),
    "placement": dict(PLACEMENT),
    "fleet": dict(FLEET),
}
"""All policies by family: those of a tier, of a replica's scheduler, and of the whole cluster, which a scenario names
beside `policies` (scaling: `fleet.scaling`); placement is of `kvsim place`."""

WITHIN: dict[str, dict[str, type]] = {
    "architecture": ARCHITECTURE,
    **{name if name not in FAMILIES else f"sequence_{name}": table for name, table in SEQUENCE_FAMILIES.items()},
}
"""Policies of the model and of what happens within a sequence, by their key in a scenario's `policies`."""

NAMED: dict[str, dict[str, type]] = {**EVERY_FAMILY, "reuse": dict(REUSE), **WITHIN}
"""Every policy that has a name."""
