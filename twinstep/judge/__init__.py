"""When two trainings are the same: tolerances with their reasons, differences, the verdict."""
