"""One training run: its recipe, its loop, its ledger, its folder."""
