"""What a step costs, and how much memory is left for KV."""
