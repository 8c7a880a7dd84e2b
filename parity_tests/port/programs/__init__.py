"""Small training programs as they are ordinarily written; a port is named after its framework."""
