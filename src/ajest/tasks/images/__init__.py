"""The second task: images."""
