"""Predecessors removed at one token: many in one pass, what becomes of the targets, tables."""
