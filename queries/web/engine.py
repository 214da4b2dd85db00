"""The one model in memory: loaded at its first use, one generation at a time, one waiting, each within its bounds.

A generation runs in a thread of its own and reports by events. Whoever listens may go away at any time: the generation
then ends at its next token, and only when it has ended is the next one let in.
"""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas.errors import AtlasError

if TYPE_CHECKING:
    from queries.steer.generation import GenerationOptions
    from queries.steer.plan import SteeringPlan

MAX_TOKENS = 256  # of one continuation
MAX_SECONDS = 120.0  # of one request, the model's loading not counted
MAX_PROMPT = 8000  # characters
RETRY = 10  # seconds after which one who was turned away may ask again

Event = dict[str, Any]
Put = Callable[[Event], None]
Work = Callable[["Turn"], None]


class Busy(AtlasError):
    """One generation runs and one waits already."""


class Stopped(Exception):
    """Nobody listens any more, or the time is up; its text says which."""


@dataclass(frozen=True)
class Turn:
    """One request's turn at the model."""

    put: Put
    stop: threading.Event
    model: Any
    tokenizer: Any
    deadline: float  # time.monotonic()
    norms: dict[str, float]  # of the engine

    def check(self) -> None:
        """Raises Stopped where the request is to end."""
        if self.stop.is_set():
            raise Stopped("stopped")
        if time.monotonic() > self.deadline:
            raise Stopped(f"ended after {MAX_SECONDS:g} seconds")


class Engine:
    """Runs work on the model, one request after another."""

    def __init__(self, name: str, device: str = "auto", seconds: float = MAX_SECONDS) -> None:
        """`name`: the model's, a folder or the hub's. `seconds`: most of one request."""
        self.name = name
        self.device = device
        self.seconds = seconds
        self.norms: dict[str, float] = {}  # dictionary → length of what is steered there, as the last run found it
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loaded: tuple[Any, Any] | None = None
        self._inside = 0

    @property
    def ready(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def run(self, work: Work) -> AsyncIterator[Event]:
        """The events of work on the model. Raises Busy at once where one runs and one waits."""
        if self._inside >= 2:
            raise Busy("the model is at work and somebody waits for it already; try again in a moment")
        self._inside += 1
        return self._events(work)

    async def _events(self, work: Work) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        stop = threading.Event()

        def put(event: Event | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def leave(_: Any) -> None:
            self._inside -= 1

        if self._inside > 1:
            events.put_nowait({"event": "status", "text": "waiting for another run to end …"})
        # Let go when the thread has ended, not when the listener goes: the model is still at work until then.
        future = loop.run_in_executor(self._pool, self._turn, work, put, stop)
        future.add_done_callback(leave)
        try:
            while (event := await events.get()) is not None:
                yield event
        finally:
            stop.set()

    def _turn(self, work: Work, put: Callable[[Event | None], None], stop: threading.Event) -> None:
        """In the model's thread: load it where it is not, work, report what went wrong."""
        try:
            if stop.is_set():
                return
            if self._loaded is None:
                put({"event": "status", "text": f"loading {self.name} …"})
                start = time.monotonic()
                from hooked.load import load_model

                self._loaded = load_model(self.name, device=self.device)
                put({"event": "status", "text": f"loaded in {time.monotonic() - start:.1f} s"})
            work(Turn(put, stop, *self._loaded, time.monotonic() + self.seconds, self.norms))
        except Stopped as end:
            put({"event": "stopped", "text": str(end)})
        except AtlasError as error:
            put({"event": "error", "text": str(error)})
        except Exception as error:
            put({"event": "error", "text": f"{type(error).__name__}: {error} (a fault of feature-atlas)"})
        finally:
            put(None)


def continuation(turn: Turn, side: str, prompt: Any, plan: SteeringPlan | None, options: GenerationOptions) -> Any:
    """Continue a prompt, each piece of text an event as it is made; the Generation at its end.

    Raises Stopped between two tokens, with the model's hooks gone.
    """
    from transformers import TextStreamer

    from queries.steer.generation import continued

    class _Pieces(TextStreamer):  # type: ignore[misc]
        def put(self, value: Any) -> None:
            turn.check()
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if text:
                turn.put({"event": "text", "side": side, "text": text})

    pieces = _Pieces(turn.tokenizer, skip_prompt=True, skip_special_tokens=True)
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        (made,) = continued(turn.model, turn.tokenizer, [prompt], plan, options, pieces)
    seconds = time.monotonic() - start
    hooks = [
        {name: hook[name] for name in ("module", "calls", "positions")} | {"added": length}
        for hook, length in zip(made.hooks, made.added, strict=True)
    ]
    said = [str(each.message) for each in raised if each.category.__name__ == "NothingSteered"]
    done = {"text": made.text, "tokens": len(made.tokens), "seconds": round(seconds, 2), "hooks": hooks}
    turn.put({"event": "done", "side": side, **done, "warnings": said})
    return made
