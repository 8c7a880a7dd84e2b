"""A user's own loss as a list of operations, and what of it would have to be otherwise."""
