"""What-if runs: variants of a scenario, what differs between them and how surely, and the least hardware for an SLO."""
