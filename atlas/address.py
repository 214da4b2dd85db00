"""Addresses of atlases: a folder, or a Neo4j server, `neo4j://host:7687` or `neo4j://host:7687/DATABASE`.

User and password come from `NEO4J_USERNAME` and `NEO4J_PASSWORD`; an address that carries them is refused, for it would
stand in manifests, histories and process lists.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from atlas.errors import AddressError

SCHEMES = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")


def is_server(address: str | os.PathLike[str]) -> bool:
    """Whether the address is meant as a server's, not as a folder."""
    return isinstance(address, str) and "://" in address


@dataclass(frozen=True)
class ServerAddress:
    """A database on a Neo4j server."""

    uri: str  # as the driver takes it, without the database
    database: str | None = None  # None: the server's default for this user

    @classmethod
    def parse(cls, address: str, database: str | None = None) -> ServerAddress:
        """Take an address apart; `database` names the database where the address does not.

        Raises AddressError for another scheme, credentials, or anything after the database's name.
        """
        scheme, _, rest = address.partition("://")
        if scheme not in SCHEMES:
            raise AddressError(f"{_without_credentials(address)}: the scheme is one of {', '.join(SCHEMES)}")
        if "@" in rest:
            raise AddressError(
                f"{_without_credentials(address)}: user and password do not belong in an address; set NEO4J_USERNAME "
                "and NEO4J_PASSWORD"
            )
        try:
            # The port is looked at only when it is asked for, so both stand in the try.
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise AddressError(
                f"{address}: the host is a name, an address or [IPv6], the port a number from 1 to 65535"
            ) from None
        named = parts.path.strip("/")
        if parts.query or parts.fragment or "/" in named or not parts.hostname:
            raise AddressError(f"{address} is not of the form {scheme}://host:7687 or {scheme}://host:7687/DATABASE")
        if named and database and named != database:
            raise AddressError(f"{address} names the database {named}, --database {database}")
        # urlsplit takes the brackets of an IPv6 address away, and the driver's URI needs them.
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{scheme}://{host}:{port or 7687}", named or database or None)

    def __str__(self) -> str:
        return f"{self.uri}/{self.database}" if self.database else self.uri


def _without_credentials(address: str) -> str:
    scheme, sign, rest = address.partition("://")
    # Up to the last @, for a password may hold one of its own.
    return f"{scheme}{sign}{rest.rpartition('@')[2]}"
