"""What a training leaves, step by step: the table of stages, `Trace`, what is saved and how."""
