"""Where the pages of a sequence lie when attention reads HBM and host memory at once: a model without an engine."""
