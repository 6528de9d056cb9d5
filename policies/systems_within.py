"""Systems that decide what happens within a sequence: a policy or two each, in the engine as it is."""

from __future__ import annotations

from policies.system import System

WITHIN: dict[str, System] = {
    "full": System("everything stays in HBM and every step reads all of it: the baseline", "vLLM"),
    "arkvale": System(
        "pages in host memory, those that matter in HBM, recalled by their digests",
        "Chen et al., NeurIPS 2024; pku-liang/ArkVale",
        {"selection": "arkvale"},
    ),
    "infinigen": System(
        "all KV in host memory, the keys of the next layer guessed and fetched a layer ahead",
        "Lee et al., OSDI 2024 (arXiv 2406.19707)",
        {"selection": "infinigen"},
    ),
    "pqcache": System(
        "all KV in host memory, product-quantised keys choose tokens, a GPU cache of blocks",
        "Zhang et al., SIGMOD 2025 (arXiv 2407.12820)",
        {"selection": "pqcache"},
    ),
    "kcache": System(
        "keys in HBM, values in host memory, the N best fetched", "arXiv 2404.18057", {"selection": "kcache"}
    ),
    "quest": System(
        "everything in HBM, each step reads the best pages by the bounds of their keys",
        "Tang et al., ICML 2024 (arXiv 2406.10774)",
        {"selection": "quest"},
    ),
    "zipvl": System(
        "only the tokens that hold a share of the attention attend in the prompt; others are dropped or packed",
        "He et al. (arXiv 2410.08584)",
        {"selection": "zipvl"},
    ),
    "l2_prefetch": System(
        "KV blocks are requested into L2 ahead of decode attention", "arXiv 2504.06319", {"prefetch": "l2"}
    ),
    "flexgen": System(
        "KV in host memory, each layer's loaded beside the layer before",
        "Sheng et al., ICML 2023 (arXiv 2303.06865)",
        {"offload": "flexgen"},
    ),
    "host_kv": System(
        "KV in host memory, loaded layer by layer: what selection saves over",
        "the baseline of the offloading systems",
        {"offload": "host_kv"},
    ),
    "uvm": System(
        "KV in over-subscribed unified memory, faulted in",
        "CUDA unified memory; baseline of arXiv 2406.19707",
        {"offload": "uvm"},
    ),
    "h2o": System(
        "heavy hitters and the newest tokens in a fixed budget",
        "Zhang et al., NeurIPS 2023 (arXiv 2306.14048)",
        {"retention": "h2o"},
    ),
    "streaming_llm": System(
        "attention sinks and a rolling window",
        "Xiao et al., ICLR 2024 (arXiv 2309.17453)",
        {"retention": "streaming_llm"},
    ),
    "snapkv": System(
        "the part of the prompt that its end attends, and all of the answer",
        "Li et al., NeurIPS 2024 (arXiv 2404.14469)",
        {"retention": "snapkv"},
    ),
    "less": System(
        "a sparse policy with a low-rank state of what it drops",
        "Dong et al., ICML 2024 (arXiv 2402.09398)",
        {"retention": "less"},
    ),
    "elastic": System(
        "a share of all tokens seen; those of the prompt are merged into the kept ones",
        "Liu et al., ECCV 2024 (arXiv 2407.18121)",
        {"retention": "elastic"},
    ),
    "scissorhands": System(
        "a fixed budget, cut in bursts by how rarely tokens mattered of late",
        "Liu et al., NeurIPS 2023 (arXiv 2305.17118)",
        {"retention": "scissorhands"},
    ),
    "corm": System(
        "no budget: what any of the last queries cared for stays",
        "Dai et al. (arXiv 2404.15949)",
        {"retention": "corm"},
    ),
    "snapstream": System(
        "rows of fixed size: sinks, what the prompt's end attended, a ring of the newest",
        "Li et al. (arXiv 2511.03092)",
        {"retention": "snapstream"},
    ),
    "bct": System(
        "a trained cache of so many slots, whatever the context",
        "arXiv 2411.15785",
        {"retention": "bct"},
    ),
    "lacache": System(
        "other parts of the past in each layer, by a ladder, thinned out as it fills",
        "Shi et al., ICML 2025 (arXiv 2507.14204)",
        {"retention": "lacache"},
    ),
    "kvcrush": System(
        "SnapKV with representatives of what it would drop",
        "Jha et al., ACML 2025 (arXiv 2503.00022)",
        {"retention": "kvcrush"},
    ),
    "xkv": System(
        "a budget divided over layers by their worth",
        "Li et al. (arXiv 2412.05896)",
        {"retention": "xkv"},
    ),
    "zigzagkv": System(
        "a budget divided over layers by how many tokens they need",
        "Zhong et al., COLING 2025 (arXiv 2412.09036)",
        {"retention": "zigzagkv"},
    ),
    "baklava": System(
        "a budget divided over heads by a profile of the model",
        "Gulhan et al. (arXiv 2502.13176)",
        {"retention": "baklava"},
    ),
    "audiokv": System(
        "a budget divided over heads by how they follow speech, votes smoothed",
        "arXiv 2604.06694",
        {"retention": "audiokv"},
    ),
    "kivi": System(
        "2-bit keys per channel and values per token",
        "Liu et al., ICML 2024 (arXiv 2402.02750)",
        {"kv_format": ["kivi"]},
    ),
    "quarot": System(
        "4-bit weights, activations and KV behind Hadamard rotations",
        "Ashkboos et al., NeurIPS 2024 (arXiv 2404.00456)",
        {"kv_format": [{"name": "quarot", "activations": True}]},
        {"weights_dtype": "w4a4"},
    ),
    "zipcache": System(
        "salient tokens in 4 bits, others in 2",
        "He et al., NeurIPS 2024 (arXiv 2405.14256)",
        {"kv_format": ["zipcache"]},
    ),
    "think": System(
        "keys without their least important channels",
        "Xu et al., ICLR 2025 (arXiv 2407.21018)",
        {"kv_format": ["think"]},
    ),
    "kvcomp": System(
        "quantised with a bounded error, then Huffman-coded",
        "Jiang et al. (arXiv 2509.00579)",
        {"kv_format": ["kvcomp"]},
    ),
    "cachemir": System(
        "KV and inference in homomorphic encryption: a model of operation counts",
        "Yu et al. (arXiv 2602.11470)",
        {"kv_format": ["cachemir"]},
    ),
    "fp8": System(
        "8-bit floating point",
        "vLLM, quantized KV cache",
        {"kv_format": ["fp8"]},
    ),
    "int8": System(
        "8-bit integers",
        "LMDeploy, KV cache quantisation",
        {"kv_format": ["int8"]},
    ),
    "int4": System(
        "4-bit integers in groups",
        "FlexGen (arXiv 2303.06865), section 5",
        {"kv_format": ["int4"]},
    ),
    "cla": System(
        "neighbouring layers share their KV", "Brandon et al., NeurIPS 2024 (arXiv 2405.12981)", {"architecture": "cla"}
    ),
    "lckv": System(
        "all layers read the KV of the top layer", "Wu and Tu, ACL 2024 (arXiv 2405.10637)", {"architecture": "lckv"}
    ),
    "cross_layer": System(
        "one of nine ways to share KV between layers",
        "Wu et al., NAACL 2025 (arXiv 2410.14442)",
        {"architecture": "cross_layer"},
    ),
    "yoco": System(
        "one global cache for the upper half of the layers",
        "Sun et al., NeurIPS 2024 (arXiv 2405.05254)",
        {"architecture": "yoco"},
    ),
    "block_transformer": System(
        "global layers once per block of tokens, local layers inside of it",
        "Ho et al., NeurIPS 2024 (arXiv 2406.02657)",
        {"architecture": "block_transformer"},
    ),
    "gqa": System(
        "fewer KV heads, each for a group of query heads",
        "Ainslie et al., EMNLP 2023 (arXiv 2305.13245)",
        {"architecture": "gqa"},
    ),
    "mqa": System(
        "one KV head",
        "Shazeer (arXiv 1911.02150)",
        {"architecture": "mqa"},
    ),
    "mla": System(
        "a latent for all heads",
        "DeepSeek-V2 (arXiv 2405.04434), section 2.1",
        {"architecture": "mla"},
    ),
}
