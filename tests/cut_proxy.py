"""A connection that fails where a test wants it to: a loopback proxy before a Bolt server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

COMMIT = b"\x00\x02\xb0\x12\x00\x00"  # Bolt's COMMIT message, as one chunk


class CutProxy:
    """Hands bytes on to a server, until it is told to fail. Use it in a `with`.

    lose: every how many-th COMMIT is acknowledged by the server and not to the client; 0: none.
    cut: after how many bytes from the client its connection is closed, once for each number, in turn.
    """

    def __init__(self, port: int, *, lose: int = 0, cut: tuple[int, ...] = ()) -> None:
        self._server = ("127.0.0.1", port)
        self._lose, self._cuts = lose, list(cut)
        self.commits = self.lost = self.cut = self._passed = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"bolt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CutProxy:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server)
        except OSError:
            client.close()
            return
        deaf = threading.Event()  # what the server still says is not handed on
        threading.Thread(target=self._back, args=(server, client, deaf), daemon=True).start()
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._fails(data, deaf):
                    break
                server.sendall(data)
            else:
                server.close()
                return
            if deaf.is_set():
                server.sendall(data)  # the server does it; nobody hears of it
                deaf.wait(0.3)
                threading.Event().wait(0.3)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _fails(self, data: bytes, deaf: threading.Event) -> bool:
        with self._lock:
            self._passed += len(data)
            if self._cuts and self._passed > self._cuts[0]:
                self._cuts.pop(0)
                self.cut += 1
                return True
            if COMMIT in data:
                self.commits += 1
                if self._lose and self.commits % self._lose == 0:
                    self.lost += 1
                    deaf.set()
                    return True
            return False

    @staticmethod
    def _back(server: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if not deaf.is_set():
                    client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
