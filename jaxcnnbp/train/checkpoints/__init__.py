"""Checkpoints of a run, written while it goes on; and parameters alone, as one file."""
