"""The model: KV-cache hierarchy, step cost, serving engine, metrics and the run."""
