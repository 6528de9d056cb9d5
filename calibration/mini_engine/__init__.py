"""The mini engine: the smallest engine that really executes a KV-hierarchy scenario, to hold the simulator to.

Real: matrix products with weights of every layer's own, attention over a paged cache, page copies between a pool on the
GPU and a pinned one, decisions by kvsim's own policy objects. Not real: tokens, sampling, networks.
"""
