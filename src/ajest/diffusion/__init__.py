"""Diffusion models: noised batches, losses, sampling, guidance, averages of weights."""
