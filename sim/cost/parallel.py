"""How a replica's GPUs share the model, and what they say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hw_profiles import picks
from hw_profiles.cost_models import AllReduceModel
from hw_profiles.devices import load_device
from hw_profiles.errors import InputError
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from sim.cost.experts import CONTIGUOUS, Placement
from sim.cost.kernels import Kernels

RING_START_S = 6.6e-6
HOP_S = {"NVLink": 0.6e-6, "PCIe": 1.0e-6}
"""Start of a ring all-reduce and each of its 2 (n - 1) hops. SOURCE: NVIDIA/nccl, src/graph/tuning.cc (baseLat and
hwLat, ring, LL protocol)."""
NETWORK = "rdma-400g"
"""Device (hw_profiles/devices) between nodes, one card for each GPU."""


@dataclass(frozen=True)
class Parallel:
    """`tp` tensor-parallel ranks in each of `pp` pipeline stages.

    expert_parallel: whole experts are shared out over the ranks of a stage, instead of splitting each.
    placement: where those experts lie (`sim.cost.experts`).
    interconnect: bytes/s that a GPU sends to others of its node, in place of what the profile has; None: the profile's.
    """

    tp: int = 1
    pp: int = 1
    expert_parallel: bool = False
    gpus_per_node: int = 8
    interconnect: float | None = None
    placement: Placement = CONTIGUOUS

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp * self.pp

    def check(self) -> None:
        """Raise InputError unless tensor-parallel groups lie inside nodes, and nodes hold whole replicas or none."""
        per_node = self.gpus_per_node
        if per_node % self.tp:
            raise InputError(
                "the ranks of a tensor-parallel group share a node",
                path="tp",
                found=self.tp,
                allowed=f"a divisor of gpus_per_node ({per_node})",
            )
        if self.gpus > per_node and self.gpus % per_node:
            allowed = f"at most {per_node // self.tp} stages, or full nodes of {per_node} GPUs"
            raise InputError("a replica over several nodes must fill them", path="pp", found=self.pp, allowed=allowed)

    def check_model(self, model: ModelSpec) -> None:
        """Raise InputError unless the model can be shared so."""
        if self.expert_parallel and not any(spec.moe for spec in model.specs):
            raise InputError(f"{model.name} has no experts", path="expert_parallel", found=True, allowed="false")
        for stage in model.stages(self.pp):
            sources = model.kv_sources[stage.first : stage.stop]
            apart = not model.even or any(not stage.first <= source < stage.stop for source in sources)
            if apart and self.pp > 1:
                reason = "layers that share keys and values, or that do not run once per token, lie on one stage"
                raise InputError(f"{model.name}: {reason}", path="pp", found=self.pp, allowed="1")
            model.layer_kinds(self.tp, expert_parallel=self.expert_parallel, stage=stage)

    @property
    def nodes(self) -> int:
        """Nodes that a replica fills, at least 1."""
        return max(1, self.gpus // self.gpus_per_node)

    def leaves_node(self, stage: int) -> bool:
        """True if the next stage is on another node."""
        return self.gpus > self.gpus_per_node and (stage + 1) * self.tp % self.gpus_per_node == 0


class Exchange:
    """Seconds of what ranks and stages send each other."""

    def __init__(self, kernels: Kernels, parallel: Parallel) -> None:
        self._tp = parallel.tp
        self._reduce = _all_reduce(kernels, parallel.tp, parallel.interconnect) if parallel.tp > 1 else None
        self._pair = _all_reduce(kernels, 2, parallel.interconnect) if parallel.pp > 1 else None
        self._network = None
        if any(parallel.leaves_node(stage) for stage in range(parallel.pp - 1)):
            self._network = load_device(NETWORK).read
            kernels.note(f"stages on different nodes: one card {NETWORK} for each GPU")

    def all_reduce(self, nbytes: float) -> float:
        """Sum of a buffer of `nbytes` that every rank holds."""
        return self._reduce.seconds(nbytes) if self._reduce else 0.0

    def gather(self, nbytes: float) -> float:
        """Every rank gets all `nbytes`, of which each has a share: half of what an all-reduce moves in a ring."""
        return self._reduce.seconds(nbytes / 2) if self._reduce else 0.0

    def hand_over(self, nbytes: float, leaves_node: bool) -> float:
        """`nbytes` of activations go to the next stage: each rank sends a share, and there every rank gets all.

        SOURCE: vllm/distributed/parallel_state.py, send_tensor_dict. Between GPUs of a node like a sum over two ranks,
        in which each sends the other as many bytes.
        """
        share = nbytes / self._tp
        if leaves_node and self._network:
            seconds = self._network.latency + share / self._network.bandwidth
        else:
            seconds = self._pair.seconds(share) if self._pair else 0.0
        return seconds + self.gather(nbytes)


def _all_reduce(kernels: Kernels, ranks: int, interconnect: float | None) -> AllReduceModel:
    """The profile's, or an estimate: from another number of ranks, or a ring over the interconnect (or PCIe).

    Ring: 2 (n - 1) / n of the bytes leave every rank, in 2 (n - 1) hops (Patarasuk and Yuan, J. Parallel Distrib.
    Comput. 69, 2009).
    """
    profile = kernels.profile
    if interconnect is None:
        nearest = min(_measured_ranks(profile), key=lambda n: (abs(n - ranks), n), default=ranks)
        pick = picks.allreduce(profile, nearest)
        if pick is not None:
            model = kernels.take(pick)
            if nearest == ranks:
                return model
            kernels.note(f"all-reduce over {ranks} GPUs from that over {nearest}, by the traffic of a ring")
            return AllReduceModel(ranks, model.alpha, model.beta * _traffic(nearest) / _traffic(ranks))
    link, rate = ("NVLink", interconnect) if interconnect else ("PCIe", profile.links["pcie_d2h"].beta)
    kernels.note(
        f"all-reduce over {ranks} GPUs: a ring over {link} at {rate / 1e9:.0f} GB/s, latencies of NCCL's model"
    )
    return AllReduceModel(ranks, RING_START_S + 2 * (ranks - 1) * HOP_S[link], rate / _traffic(ranks))


def _traffic(ranks: int) -> float:
    """Bytes that leave each rank per byte of the buffer, in a ring."""
    return 2 * (ranks - 1) / ranks


def _measured_ranks(profile: Profile) -> Sequence[int]:
    groups = {path.split(".")[1] for path in profile.entries if path.startswith("kernels.allreduce_")}
    return sorted(int(group.removeprefix("allreduce_")) for group in groups)
