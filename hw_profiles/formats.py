"""How many bytes a number format needs, scales and zero points included: weights and cached keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hw_profiles.errors import InputError


@dataclass(frozen=True)
class Format:
    """Values of `bits` bits each; every `rows` x `group` of them share `scale_bits` of scale and zero point.

    group counts along the input axis of a weight, or along a head's vector in the cache; 0 means the whole row.
    One scale for a whole tensor is too small to count: scale_bits 0.
    """

    name: str
    bits: int
    group: int = 0
    rows: int = 1
    scale_bits: int = 0

    def matrix_bytes(self, n: int, k: int) -> int:
        """Bytes of an [n, k] matrix (n outputs of k inputs; n vectors of k values in the cache)."""
        groups = -(-n // self.rows) * -(-k // (self.group or k))
        return -(-(n * k * self.bits + groups * self.scale_bits) // 8)


def _table(*formats: Format) -> Mapping[str, Format]:
    return MappingProxyType({f.name: f for f in formats})


BF16 = Format("bf16", 16)
FP8_BLOCK = Format("fp8_block", 8, group=128, rows=128, scale_bits=32)

WEIGHT_FORMATS: Mapping[str, Format] = _table(
    BF16,
    Format("fp16", 16),
    Format("fp32", 32),
    Format("fp8", 8),
    FP8_BLOCK,
    Format("int8", 8, scale_bits=16),
    Format("int4", 4, group=128, scale_bits=16 + 4),
    Format("mxfp4", 4, group=32, scale_bits=8),
    Format("nvfp4", 4, group=16, scale_bits=8),
    Format("w4a4", 4, scale_bits=16),
)
"""SOURCE: fp8_block, one fp32 scale per 128 x 128 block: DeepSeek-V3 technical report (arXiv 2412.19437) section
3.3.2, and the checkpoint's F32 tensors. int8, one 16-bit scale per output: W8A8 of compressed-tensors. int4, one fp16
scale and one packed 4-bit zero point per 128 inputs: AWQ (mit-han-lab/llm-awq, qlinear.py). mxfp4, one E8M0 byte per
32: OCP Microscaling Formats specification 1.0. nvfp4, one E4M3 byte per 16: NVIDIA TensorRT Model Optimizer. w4a4, an
fp16 scale per output, activations of 4 bits too: QuaRot (arXiv 2404.00456), section 4, without groups."""

KV_FORMATS: Mapping[str, Format] = _table(
    BF16,
    Format("fp16", 16),
    Format("fp32", 32),
    Format("fp8", 8),
    Format("int8", 8, scale_bits=32),
    Format("int4", 4, scale_bits=32),
    Format("nvfp4", 4, group=16, scale_bits=8),
)
"""SOURCE: fp8, one scale per tensor: vLLM, docs/features/quantization/quantized_kvcache.md. int8 and int4, asymmetric
per head and token, so an fp16 scale and an fp16 zero point per vector: LMDeploy, docs/en/quantization/kv_quant.md.
nvfp4, one E4M3 byte per 16 values: TensorRT-LLM, NVFP4 KV cache."""


def weight_format(value: str | Format) -> Format:
    """A name of WEIGHT_FORMATS, or a Format as it is. Raises InputError."""
    return _named(value, WEIGHT_FORMATS, "weights")


def kv_format(value: str | Format) -> Format:
    """A name of KV_FORMATS, or a Format as it is. Raises InputError."""
    return _named(value, KV_FORMATS, "kv")


def _named(value: str | Format, table: Mapping[str, Format], what: str) -> Format:
    if isinstance(value, Format):
        return value
    if value not in table:
        raise InputError("unknown number format", path=what, found=value, allowed=table, near=table)
    return table[value]
