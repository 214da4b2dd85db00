"""The page: an atlas seen, walked and steered in a browser, served to the machine that it runs on."""
