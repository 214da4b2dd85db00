"""Reading Cypher in what LadybugDB is known to answer as Neo4j does, and the rest of it in Python."""
