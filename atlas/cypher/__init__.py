"""Reading Cypher: tokens, syntax, and its values and expressions as Neo4j defines them; knows of no engine."""
