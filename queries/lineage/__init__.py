"""The flow graph of a feature: walked, and drawn as text."""
