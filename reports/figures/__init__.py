"""Figures, one family a file. Each function takes `RunData` and `TimeBins` and returns `Figure`s."""
