"""A study as `kvsim run --explain` writes it: `explain.json`, schema 1."""

from typing import Any


def make_study(config_sha256: str, **more: Any) -> dict[str, Any]:
    def runs(low: list[float | None], high: list[float | None]) -> list[dict[str, Any]]:
        keys = ("ttft_p99_ms", "goodput_per_s")
        return [
            {"factor": factor, "value": f"{factor:g} TB/s", "metrics": dict(zip(keys, values, strict=True))}
            for factor, values in ((0.5, low), (2.0, high))
        ]

    return {
        "schema": "kvsim-explain/1",
        "version": "0.1.0",
        "config_sha256": config_sha256,
        "requests": 1000,
        "of": 1500,
        "factors": [0.5, 2.0],
        "metrics": [
            {"key": "ttft_p99_ms", "label": "TTFT, P99", "unit": "ms", "better": "lower", "value": 400.0},
            {"key": "goodput_per_s", "label": "Goodput", "unit": "requests/s", "better": "higher", "value": 2.0},
        ],
        "resources": [
            {"key": "a", "label": "slack", "value": "1 TB/s", "what": "Nothing.", "runs": runs([400, 2], [400, 2])},
            {"key": "b", "label": "wheel", "value": "1 TB/s", "what": "Much.", "runs": runs([4000, 0], [100, 2.02])},
            {
                "key": "c",
                "label": "lever",
                "value": "as profiled",
                "what": "Some.",
                "runs": [{"factor": 0.5, "value": "0.5 x", "problem": "does not fit"}, *runs([0, 0], [300, 4])[1:]],
            },
        ],
        **more,
    }
