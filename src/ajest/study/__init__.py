"""A study: many rules of selection screened on some seeds, the best of them judged on others (METHOD 3, 6)."""
