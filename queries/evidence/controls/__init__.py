"""What chance gives: random rows in place of a dictionary, and dictionaries that cannot be the source."""
