"""Adapters to libraries that are extras; each is imported where it is used."""
