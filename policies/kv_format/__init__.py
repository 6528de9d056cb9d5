"""How the KV of a sequence is stored."""
