"""The embedded store: LadybugDB in the atlas folder."""
