"""How many replicas serve, and which models' weights are where before they are asked for."""
