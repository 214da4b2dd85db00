"""A flow graph as a picture: figure → layout → SVG, which every place shows: files, notebooks, papers, the page."""
