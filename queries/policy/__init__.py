"""What may not be done to a model with an atlas: rules in a file, what they protect, and whether a plan keeps them."""
