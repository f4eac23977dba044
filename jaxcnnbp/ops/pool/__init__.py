"""The pools: one file a rule."""
