"""Is it true? One pass over a text, and from it figures of edges and tables with intervals."""
