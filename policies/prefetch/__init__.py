"""Prefetch: which blocks are brought toward the GPU before they are asked for."""
