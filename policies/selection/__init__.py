"""What a decode step reads of a sequence's KV, and what it fetches for that."""
