"""What a process has: cores, other processes, signals, random streams."""
