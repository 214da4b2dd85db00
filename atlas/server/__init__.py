"""The store on a server: Neo4j."""
