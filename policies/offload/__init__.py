"""Offload: which blocks are copied away from the GPU, and when."""
