"""What makes a port part from PyTorch: known differences, and the search for those that fit."""
