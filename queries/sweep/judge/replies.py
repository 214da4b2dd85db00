"""Replies kept on disk, by the content of what was asked: a question is paid for once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from queries.sweep.judge.client import Reply, Server

REPLIES = "replies.sqlite"


class Replies:
    """The judge's replies so far; asks for the others. Safe for several threads."""

    def __init__(self, folder: Path, server: Server) -> None:
        """folder: where they are kept; made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._server, self.model, self.url = server, server.model, server.url
        self._lock = threading.Lock()
        # Each reply is a transaction of its own: whatever was answered before a kill is there afterwards.
        self._kept = sqlite3.connect(folder / REPLIES, check_same_thread=False, isolation_level=None)
        self._kept.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, content TEXT, top TEXT)")
        self.asked = 0  # questions that went to the server
        self.missing = 0  # of them without a reply

    def ask(self, messages: Sequence[Mapping[str, str]], tokens: int) -> Reply | None:
        """The reply, kept or new; None where none came. Raises JudgeError."""
        name = _key(self._server, messages, tokens)
        with self._lock:
            row = self._kept.execute("SELECT content, top FROM replies WHERE key = ?", (name,)).fetchone()
        if row is not None:
            return Reply(row[0], json.loads(row[1]))
        reply = self._server.ask(messages, tokens)
        with self._lock:
            self.asked += 1
            self.missing += reply is None
            if reply is not None:
                values = (name, reply.content, json.dumps(reply.top))
                self._kept.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", values)
        return reply

    def close(self) -> None:
        """Let go of the file."""
        self._kept.close()


def _key(server: Server, messages: Sequence[Mapping[str, str]], tokens: int) -> str:
    asked = json.dumps([server.url, server.model, list(messages), tokens], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()
