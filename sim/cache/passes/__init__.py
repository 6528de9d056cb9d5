"""Policies that ship, written once more for one job: a pass over a trace's blocks, of one size and without pins."""
