"""The second task: pictures."""
