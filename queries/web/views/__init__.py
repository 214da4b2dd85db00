"""What stands at each address: a view reads the address, asks the atlas, fills a template."""
