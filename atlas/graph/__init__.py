"""The graph, whatever engine holds it: the store contract, tables, digest, copying."""
