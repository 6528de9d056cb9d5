"""Eviction: which block of a full tier leaves first."""
