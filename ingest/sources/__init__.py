"""SAELens releases and folders become rows in residual space."""
