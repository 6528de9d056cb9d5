"""What a sequence keeps of its KV."""
