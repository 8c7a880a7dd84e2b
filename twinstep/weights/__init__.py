"""A model's weights in files, as NumPy's arrays by name: read and written beside no framework."""
