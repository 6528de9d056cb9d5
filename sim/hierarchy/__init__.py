"""Tiers that hold blocks, links that move them, and the cache of one replica over both."""
