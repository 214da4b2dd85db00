"""How a model runs while it is steered: prompts, calls, passes, positions, and the hooks in them."""
