"""Other people's ports: which leaf is which, whether they train the same, and if not, why."""
