"""Which feature, which layer, how strong: measured on a small budget."""
