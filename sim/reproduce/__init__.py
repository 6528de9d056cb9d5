"""What papers published, each in its own setting, and what the simulator makes of that setting."""
