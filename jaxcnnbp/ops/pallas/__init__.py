"""Kernels for GPUs, in Pallas."""
