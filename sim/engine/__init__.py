"""The serving engine: sequences, continuous batching, strides, routing."""
