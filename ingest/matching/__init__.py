"""Pairs of dictionaries become staged matches with their noise floor."""
