"""Cypher computed in Python, with the answers that Neo4j gives."""
