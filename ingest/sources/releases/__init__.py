"""SAELens's list of releases: its entries, which of them are meant, the hub they lie on, the pickles among them."""
