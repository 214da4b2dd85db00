"""The Neo4j driver's errors as this project's: one line each, with what to do."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atlas.address import ServerAddress
from atlas.embedded.values import first_line
from atlas.errors import AtlasError, QueryError, QueryRefused, QueryTimeout, QueryTooLarge, StoreError

USERNAME, PASSWORD = "NEO4J_USERNAME", "NEO4J_PASSWORD"
MEMORY = "OutOfMemory"  # in the server's code


def user() -> str:
    """Who connects: NEO4J_USERNAME, else Neo4j's first user."""
    return os.environ.get(USERNAME) or "neo4j"


@contextmanager
def translated(address: ServerAddress) -> Iterator[None]:
    """Turn the driver's errors into this project's."""
    from neo4j.exceptions import DriverError, Neo4jError

    try:
        yield
    except Neo4jError as error:
        raise _of_server(address, error) from None
    except DriverError as error:
        raise _of_driver(address, error) from None
    except (OSError, ValueError) as error:  # a name that does not resolve, a certificate that cannot be read
        raise StoreError(f"{address} cannot be reached ({first_line(error)})") from None


def too_little_memory(address: ServerAddress, error: Any) -> StoreError:
    """The error for a transaction of this project's own that the server has no memory for."""
    return StoreError(
        f"{address} gives a transaction too little memory ({first_line(error.message)}); raise "
        "dbms.memory.transaction.total.max and db.memory.transaction.max there, then repeat the command"
    )


# What the server's codes mean; the first that the code contains.
_CODES: tuple[tuple[str, type[AtlasError], str], ...] = (
    ("Security.Unauthorized", StoreError, "{address} does not accept {user}: set {username} and {password}"),
    ("Security.AuthenticationRate", StoreError, "{address} saw too many wrong passwords; wait, then set {password}"),
    ("Security.CredentialsExpired", StoreError, "{address} wants the password changed before it is used"),
    ("Security.Forbidden", StoreError, "{address} does not let this user do it ({message}); ask for a role that may"),
    ("Database.DatabaseNotFound", StoreError, "{address}: {message}; create it, or name another with --database"),
    ("ReadOnly", StoreError, "{address} is read-only ({message}); make the database writable, then repeat the command"),
    ("Transaction.TransactionTimedOut", QueryTimeout, "the statement did not end in time; narrow it or use LIMIT"),
    (MEMORY, QueryTooLarge, "the statement needs more memory than the server gives it; narrow it or use LIMIT"),
    ("Statement.ParameterMissing", QueryError, "the statement needs a value for a parameter: {message}"),
    ("Statement.AccessMode", QueryRefused, "the statement writes; only reading is allowed"),
    ("ClientError.Statement", QueryError, "the graph cannot answer this: {message}"),
    ("ClientError.Procedure", QueryError, "the graph cannot answer this: {message}"),
)


def _of_server(address: ServerAddress, error: Any) -> AtlasError:
    code = str(error.code)
    known = {
        "address": address,
        "user": f"the user {user()} with this password" if os.environ.get(PASSWORD) else "a user without a password",
        "message": first_line(error.message),
        "username": USERNAME,
        "password": PASSWORD,
    }
    for part, kind, text in _CODES:
        if part in code:
            return kind(text.format(**known))
    return StoreError(
        f"{address} could not do it ({code}: {known['message']}); see the server's log and its disk, then repeat the "
        "command"
    )


def _of_driver(address: ServerAddress, error: Exception) -> AtlasError:
    from neo4j.exceptions import ConfigurationError, ServiceUnavailable, SessionExpired

    root = _root(error)
    message = first_line(root)
    # It is an SSLError too, so it is looked for first.
    if isinstance(root, ssl.SSLCertVerificationError):
        scheme = address.uri.partition("+")[0]
        return StoreError(
            f"{address}: the certificate is not accepted ({root.verify_message}); use the name that it was issued for, "
            f"and set SSL_CERT_FILE to its authority's certificate, or write {scheme}+ssc:// to accept any"
        )
    if isinstance(root, ssl.SSLError):
        plain = address.uri.partition("+")[0] + "://" + address.uri.partition("://")[2]
        return StoreError(f"{address} does not encrypt ({message}); without encryption its address is {plain}")
    if any(word in message.lower() for word in ("handshake", "protocol", "http")):
        return StoreError(
            f"{address} does not answer in a version of Bolt that this driver knows ({message}); is it a Neo4j "
            "server's Bolt port? if it encrypts, its scheme is neo4j+s or neo4j+ssc; for a newer server: pip install "
            "--upgrade neo4j"
        )
    if isinstance(error, ConfigurationError):
        return StoreError(f"{address} cannot be used: {message}")
    if isinstance(error, ServiceUnavailable | SessionExpired):
        return StoreError(f"no Neo4j server answers at {address} ({message}); start it, then repeat the command")
    return StoreError(f"{address}: {type(error).__name__}: {message}")


def _root(error: BaseException) -> BaseException:
    """What the driver's error came from; where it asked several servers, the first one's."""
    cause = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    return error if cause is None else _root(cause)
