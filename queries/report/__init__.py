"""One folder that a reviewer can read: tables, figures, texts, plans, and the commands that give them."""
