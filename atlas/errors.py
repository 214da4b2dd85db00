"""The errors a user can act on. Each message is one line that says what is wrong and what to do.

AtlasError
├── AddressError            an address that names no atlas
├── FolderError             the atlas folder: missing, corrupt, of a newer format, locked
│   ├── NotAnAtlas
│   ├── CorruptAtlas
│   ├── NewerAtlas
│   └── LockedAtlas
├── ClosedAtlas             an atlas used after it was closed
├── StoreError              a graph's server that cannot be used: down, refusing, too old
├── IngestError             a source or a dictionary that cannot be taken in
├── QueryError              a statement that cannot be answered
│   ├── QueryRefused        not read-only, or beyond what the guard allows
│   ├── QueryTimeout
│   └── QueryTooLarge       its rows or its memory exceed a cap
├── UnknownFeature          an id that the atlas does not hold
├── OutputError             a result that cannot be written where it is wanted
├── PlanError               a steering plan that cannot be applied
│   └── PolicyError         one that the atlas' policy forbids, or a policy that cannot be read
├── JudgeError              a judge of texts that refuses, or cannot tell planted texts apart
└── ModelError              a language model that cannot be loaded or hooked
    └── HookNotFired        a hook that never ran: nothing was steered there

Errors of other libraries are translated once, where they enter; the command line catches `AtlasError` once.
"""

from __future__ import annotations


class AtlasError(Exception):
    """Base of every error that the user can act on."""


class AddressError(AtlasError):
    """The text names no folder and no server."""


class FolderError(AtlasError):
    """The atlas folder cannot be used."""


class NotAnAtlas(FolderError):
    """The folder holds no atlas."""


class CorruptAtlas(FolderError):
    """A file of the atlas is damaged or missing."""


class NewerAtlas(FolderError):
    """The atlas was written by a newer version of feature-atlas."""


class LockedAtlas(FolderError):
    """Another process is writing to the atlas."""


class ClosedAtlas(AtlasError):
    """The atlas was closed; open it again."""


class StoreError(AtlasError):
    """The server that holds, or shall hold, the graph cannot be used."""


class ClusterError(AtlasError):
    """A Ray cluster that is not there, or that failed; the message says what to do."""


class IngestError(AtlasError):
    """A source or a dictionary cannot be taken in."""


class QueryError(AtlasError):
    """A statement cannot be answered."""


class QueryRefused(QueryError):
    """The statement is not one that a reader may run."""


class QueryTimeout(QueryError):
    """The statement did not end in time."""


class QueryTooLarge(QueryError):
    """The statement's rows or memory exceed a cap."""


class UnknownFeature(AtlasError):
    """The atlas holds no such feature."""


class OutputError(AtlasError):
    """A result cannot be written where it is wanted."""


class PlanError(AtlasError):
    """A steering plan cannot be made or applied."""


class PolicyError(PlanError):
    """The atlas' policy forbids the plan, or cannot be read."""


class JudgeError(AtlasError):
    """A judge of texts cannot be asked, or cannot be believed."""


class ModelError(AtlasError):
    """A language model cannot be loaded or hooked."""


class HookNotFired(ModelError):
    """A steering hook never ran."""
