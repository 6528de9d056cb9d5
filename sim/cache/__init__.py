"""Hit ratios of eviction policies on a trace, without time: the study behind `kvsim cache`, and its bounds."""
