"""One ingest on many machines: which pairs are whose, what a part holds, how parts become the whole."""
