"""The atlas folder: manifest, lock, rows, labels, staged matches."""
