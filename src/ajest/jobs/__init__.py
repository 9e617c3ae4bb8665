"""Jobs on worker processes of this machine or of a cluster. Knows nothing of benches."""
