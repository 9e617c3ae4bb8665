"""Vectors: any array of N rows and d columns, and a few made-up sets that need no file."""
