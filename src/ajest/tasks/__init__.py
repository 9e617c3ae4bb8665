"""What can be learned. All that differs between two tasks lies in their packages; training knows `base` alone."""
