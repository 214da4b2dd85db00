"""Steering: a plan becomes interventions, hooks, text, a score."""
