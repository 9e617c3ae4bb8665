"""What a bench compares, and at which budgets."""
