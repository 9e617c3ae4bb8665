"""The bench: arms x seeds as independent, resumable runs, compared at equal budgets (docs/method.md#protocol)."""
