"""What happens to the KV of a sequence while it runs: its format, what is kept, what a step reads, what moves."""
