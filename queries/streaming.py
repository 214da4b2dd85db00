"""Show text on the terminal while it is made. It goes to stderr: stdout is for the result."""

from __future__ import annotations

import sys
from typing import Any


def stderr_streamer(tokenizer: Any) -> Any:
    """A transformers streamer that writes new text, without its prompt, to stderr."""
    from transformers import TextStreamer

    class _Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            sys.stderr.write(text + ("\n" if stream_end else ""))
            sys.stderr.flush()

    return _Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
