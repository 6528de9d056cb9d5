"""Request traces: the record, one reader per format, generators and statistics."""
