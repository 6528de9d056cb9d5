"""Whom an engine admits next: one file per policy."""
