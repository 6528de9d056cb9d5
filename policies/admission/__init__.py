"""Admission: which blocks may enter a tier behind HBM."""
