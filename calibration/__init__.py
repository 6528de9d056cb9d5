"""Measuring hardware and fitting profiles from it; the only place for torch and Triton.

This version ships fitted profiles in `hw_profiles/profiles`; the measuring code is not part of it yet.
"""
