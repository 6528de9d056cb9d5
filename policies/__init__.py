"""Policies of the KV-cache hierarchy: plans as data, executed and charged by the simulator."""
