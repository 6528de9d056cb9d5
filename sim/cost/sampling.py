"""Choosing the next tokens from the logits."""

from __future__ import annotations

from hw_profiles.profile import Profile

LOGIT_BYTES = 2 + 4
"""Moved over HBM per logit: read as the output head left it (16 bits), written as fp32; what follows finds it in L2."""
KERNELS = 4
"""Launched one by one, outside of the CUDA graph: copy to fp32, maximum, selection of rows, copy of the tokens."""
# SOURCE: vllm/v1/sample/sampler.py, greedy. Against the sampler rows of public vLLM 0.19 profiles (LLMServingSim; RTX
# PRO 6000 and RTX 4090, vocabularies of 128,256 and 151,936, 96 and 192 rows) it is off by -16 to +29 %. Penalties,
# top-k and top-p come on top and are not modelled.


def sampling_bytes(rows: int, vocab: int) -> int:
    """Bytes over HBM."""
    return rows * vocab * LOGIT_BYTES


def sampling_s(rows: int, vocab: int, profile: Profile) -> float:
    """Time to sample `rows` tokens of a vocabulary, after the output head."""
    return sampling_bytes(rows, vocab) / profile.hbm_bandwidth + KERNELS * profile.launch.stream
