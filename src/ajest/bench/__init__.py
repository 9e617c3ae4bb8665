"""The bench: arms x seeds as independent, resumable runs, compared at equal budgets (METHOD 6)."""
