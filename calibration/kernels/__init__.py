"""Triton kernels that calibration times, one small file each: kernel, launcher, torch reference, checks, builds.

The same source runs on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1), compiles ahead of time for GPUs that
are not there, and is timed on the GPU that is. Nothing here is imported unless torch and Triton are installed.
"""
