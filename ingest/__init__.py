"""Dictionaries in: sources, mapping into residual space, matching, life cycle, labels."""

from ingest.job import IngestReport, ingest

__all__ = ["IngestReport", "ingest"]
