"""Faults to plant, how each is planted, and where it must show."""
