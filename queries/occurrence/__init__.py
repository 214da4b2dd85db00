"""One text read by the model: what fires in it, and where one firing comes from."""
