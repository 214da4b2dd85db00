"""Which features fire together on a text, written to the edges."""
