"""Which pages of a sequence lie in HBM where attention reads host memory beside it: one file per policy."""
