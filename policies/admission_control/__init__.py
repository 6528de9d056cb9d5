"""Whether a request is served at all: one file per policy."""
