"""Model transforms that change what a token leaves in the cache."""
