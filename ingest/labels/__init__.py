"""Words for features: promoted tokens, activations on a text, imports."""
