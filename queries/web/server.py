"""Serve the page until it is interrupted: a socket, a token, an address printed, uvicorn."""

from __future__ import annotations

import secrets
import socket
import sys
import webbrowser

import uvicorn

from atlas.atlas import open_atlas
from atlas.errors import AddressError
from queries.web.app import application
from queries.web.engine import Engine
from queries.web.guard import is_loopback
from queries.web.site import Site


def serve(
    atlas: str | None, host: str, port: int, *, open_: bool = False, model: str | None = None, device: str = "auto"
) -> None:
    """Serve an atlas; the address with its token is the first line on stdout. Returns when it is interrupted.

    Raises AddressError where the host or the port is not to be had, and what open_atlas raises.
    """
    with open_atlas(atlas) as opened:
        name = model or next(iter(opened.dictionaries.values())).model_name
        listening = _socket(host, port)
        with listening:
            at = listening.getsockname()[1]
            token = secrets.token_urlsafe(24)
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{at}/?token={token}"
            print(address, flush=True)
            if not is_loopback(host):
                print(
                    f"warning: {host} can be reached from other machines, and the connection is not encrypted: whoever "
                    "reads along has the token",
                    file=sys.stderr,
                )
            site = Site(opened, Engine(name, device))
            app = application(site, token, host, at)
            # Its own log lines would hold addresses, and the first one the token.
            settings = uvicorn.Config(app, log_level="error", access_log=False, server_header=False, lifespan="off")
            if open_:
                webbrowser.open(address)
            uvicorn.Server(settings).run(sockets=[listening])


def _socket(host: str, port: int) -> socket.socket:
    """A listening socket; raises AddressError in words of the command."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With its protocol named, asyncio sends small answers at once; else each waits 40 ms for an acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(64)
    except OSError as error:
        raise AddressError(f"{host} port {port} cannot be listened at ({error.strerror}); try --port 0") from None
    return listening
