"""CUDA graphs of decode steps: which batch sizes are captured, and what a batch between two of them runs as."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

LARGEST = 512
"""Sequences of the largest graph that vLLM captures by default."""


def captured_sizes(max_num_seqs: int, max_num_batched_tokens: int) -> tuple[int, ...]:
    """The sizes that vLLM captures by default: 1, 2, 4, then every 8th below 256, then every 16th.

    Up to twice `max_num_seqs`, at most LARGEST, and no more than a step has tokens. SOURCE: vLLM, VllmConfig's
    _set_cudagraph_sizes (vllm/config/vllm.py).
    """
    most = min(2 * max_num_seqs, LARGEST, max_num_batched_tokens)
    return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, LARGEST + 1, 16)) if size <= most)


def graph_multiples(sizes: Sequence[int], rows: int) -> tuple[int, ...]:
    """Captured sizes rounded up to multiples of the `rows` of a sequence, none above the largest.

    SOURCE: vLLM, adjust_cudagraph_sizes_for_spec_decode (vllm/config/compilation.py).
    """
    most = max(sizes[-1], rows)
    return tuple(sorted({whole for size in sizes if (whole := -(-size // rows) * rows) <= most}))


TRTLLM_SIZES = (*range(1, 33), 64, 128)
"""The sizes that TensorRT-LLM captures by default; without padding, so other batches run without graphs. SOURCE:
NVIDIA/TensorRT-LLM, CudaGraphConfig (tensorrt_llm/llmapi/llm_args.py): max_batch_size 128, enable_padding false."""


def sglang_sizes(hbm_bytes: int, tp: int) -> tuple[int, ...]:
    """The sizes that SGLang captures by default, by the memory of a GPU and the ranks of a group.

    SOURCE: sgl-project/sglang, python/sglang/srt/server_args.py, _handle_gpu_memory_settings and
    _generate_cuda_graph_batch_sizes.
    """
    few, many = next((sizes for gib, sizes in _SGLANG_LARGEST if hbm_bytes < gib * 2**30), (512, 512))
    sizes = (1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), 512)
    return tuple(size for size in sizes if size <= (few if tp < 4 else many))


_SGLANG_LARGEST = ((20, (8, 8)), (35, (24, 80)), (60, (32, 160)), (160, (256, 512)))
"""Below so many GiB of memory: rows of the largest graph with fewer than four ranks, and with more."""


class Graphs:
    """Decode steps that replay graphs of the captured `sizes`, ascending; None: one for every size.

    padding: batches between two sizes run as the larger; False: without a graph.
    """

    def __init__(self, sizes: Sequence[int] | None = None, *, padding: bool = True) -> None:
        self._padded: list[int | None] | None = None
        if sizes is not None:
            padded = [size for below, size in pairwise((-1, *sizes)) for _ in range(size - below)]
            self._padded = [size if padding or size == seqs else None for seqs, size in enumerate(padded)]

    def rows(self, seqs: int) -> int | None:
        """Rows of the graph that a batch of `seqs` sequences replays; None where there is none, and above the largest:
        its kernels are launched one by one."""
        if self._padded is None:
            return seqs
        return self._padded[seqs] if seqs < len(self._padded) else None
