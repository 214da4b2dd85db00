"""Files on the hub: from its cache, or fetched; offline answers at once.

The hub's library asks five times, for half a minute, where no network is. Whether one is, is found out here, once in a
minute; without one, only the cache is asked, as `HF_HUB_OFFLINE=1` has it.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from threading import Thread
from time import monotonic as time
from urllib.parse import urlsplit

_SECONDS = 4.0  # to look up the hub's name and connect; where no network is, both fail at once
_HOLDS = 60.0  # seconds for which the answer is kept
_PORTS = {"http": 80, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
_log = logging.getLogger(__name__)


def fetch(repository: str, name: str) -> Path:
    """A file of a repository; raises OSError (the hub's own) where it is neither in the cache nor to be had."""
    from huggingface_hub import hf_hub_download

    offline_where_unreachable()
    return Path(hf_hub_download(repository, name))


def offline_where_unreachable() -> bool:
    """Whether only the hub's cache can be asked: because the user says so, or since the hub cannot be reached."""
    from huggingface_hub import constants

    # The user's own word, not one that was set below: it holds without a look.
    if constants.HF_HUB_OFFLINE and not _Found.offline:
        return True
    if (_Found.endpoint, _Found.offline) != (constants.ENDPOINT, constants.HF_HUB_OFFLINE) or time() > _Found.until:
        _Found.endpoint, _Found.offline = constants.ENDPOINT, not _reachable(constants.ENDPOINT)
        _Found.until = time() + _HOLDS
        constants.HF_HUB_OFFLINE = _Found.offline
        if _Found.offline:
            _log.warning("%s cannot be reached: only its cache is asked", constants.ENDPOINT)
    return bool(constants.HF_HUB_OFFLINE)


class _Found:
    """What was found out of the way to the hub, and until when it holds."""

    endpoint = ""
    offline = False
    until = 0.0


def _reachable(endpoint: str) -> bool:
    """Whether the hub, or the proxy on the way to it, can be connected to."""
    proxies = (os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    address = urlsplit(next((proxy for proxy in proxies if proxy), endpoint))
    port = address.port or _PORTS.get(address.scheme, 443)
    connected = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout=_SECONDS).close()
        except OSError:
            return
        connected.append(True)

    thread = Thread(target=connect, daemon=True)  # a name may be looked up for longer than any timeout
    thread.start()
    thread.join(_SECONDS)
    return bool(connected)
