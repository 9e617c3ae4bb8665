"""Reading a bench's folder: numbers, statistics, findings. Computes no metric and writes nothing."""
