"""Implementations of the three convolution passes for CPUs."""
