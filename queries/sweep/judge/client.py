"""A chat server of the OpenAI protocol: one question, one reply; patient with rate limits, plain about refusals.

- 429, 5xx, broken connections and replies that are no JSON are tried again, after what Retry-After says or twice as
  long as before; after ATTEMPTS the reply is missing.
- Any other status is the user's to mend: the first one ends everything.
- The key comes from the environment alone, is sent to the judge's own address alone (redirects are not followed), and
  never unencrypted to another machine.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from atlas.errors import JudgeError

KEYS = ("FEATURE_ATLAS_JUDGE_KEY", "OPENAI_API_KEY")  # the first that is set
ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds between two attempts
TIMEOUT = 120.0  # seconds for one reply
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Reply:
    """What a judge answered."""

    content: str
    top: Mapping[str, float] | None = None  # log-probabilities of the first token's candidates, where they are given


@dataclass(frozen=True)
class Server:
    """A judge's address and model."""

    url: str  # base address, e.g. https://api.openai.com/v1 or http://127.0.0.1:8080
    model: str
    first_wait: float = 1.0  # seconds before the second attempt; doubles

    def __post_init__(self) -> None:
        """Raises JudgeError where the address is none, or a key would travel unencrypted."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JudgeError(f"{self.url!r} is no judge's address: give one like http://127.0.0.1:8080/v1")
        if parts.username or parts.password or parts.query:
            name = KEYS[0]
            raise JudgeError(f"a judge's address holds no password and no key: set {name} in the environment")
        if parts.scheme == "http" and parts.hostname not in _LOCAL and key():
            raise JudgeError(f"the key would travel unencrypted to {parts.hostname}: give an https address")

    def ask(self, messages: Sequence[Mapping[str, str]], tokens: int) -> Reply | None:
        """The reply to a chat, at temperature 0; None where none came after ATTEMPTS. Raises JudgeError."""
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": tokens, "seed": 0}
        body |= {"logprobs": True, "top_logprobs": 20}
        wait = self.first_wait
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(wait, LONGEST_WAIT))
                wait *= 2
            try:
                status, data, after = self._post(json.dumps(body).encode())
            except (OSError, http.client.HTTPException):
                continue
            if status == 200:
                if (reply := _reply(data)) is not None:
                    return reply
            elif status == 429 or status >= 500:
                wait = max(wait, after)
            elif status == 400 and body.pop("logprobs", None) is not None:
                body.pop("top_logprobs")  # a server that knows no log-probabilities says so; it is asked without
                wait = 0.0
            else:
                raise JudgeError(f"the judge at {self.url} answers {status}: {_message(data)}")
        return None

    def _post(self, body: bytes) -> tuple[int, bytes, float]:
        """Status, body and the seconds that Retry-After asks for (0: none)."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if secret := key():
            headers["Authorization"] = f"Bearer {secret}"
        try:
            connection.request("POST", (parts.path.rstrip("/") or "/v1") + "/chat/completions", body, headers)
            response = connection.getresponse()
            after = response.headers.get("Retry-After", "")
            return response.status, response.read(), float(after) if after.replace(".", "", 1).isdigit() else 0.0
        finally:
            connection.close()


def key() -> str | None:
    """The key that the environment holds for a judge."""
    return next((value for name in KEYS if (value := os.environ.get(name))), None)


def _reply(data: bytes) -> Reply | None:
    """The first choice of a completion; None where the body is not one."""
    try:
        choice = json.loads(data)["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    return Reply(content, _top(choice)) if isinstance(content, str) else None


def _top(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Log-probabilities of the first token that is not white space; None where the server gives none."""
    try:
        for token in (choice.get("logprobs") or {}).get("content") or ():
            if token["token"].strip():
                return {each["token"]: float(each["logprob"]) for each in token["top_logprobs"]}
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return None


def _message(data: bytes) -> str:
    """What the server says of an error, on one line."""
    try:
        found = json.loads(data)["error"]
        text = str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, LookupError, TypeError):
        text = data[:200].decode("utf-8", "replace")
    return " ".join(text.split())[:200] or "nothing more"
