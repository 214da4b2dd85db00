"""Questions with a name: their Cypher, their answers, the graph of an answer."""
