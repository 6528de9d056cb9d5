"""Which replica gets a request: one file per router."""
