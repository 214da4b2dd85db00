"""What was done to a model: a line for every steered run, and the run again."""
