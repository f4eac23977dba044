"""What measures the implementations of a convolution: for a program, for a shipped table, and how good that is."""
