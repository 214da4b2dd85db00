"""A sentence: at which of its tokens a feature fires; where no feature is named, which features do at each token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.errors import QueryError
from queries.web.engine import MAX_PROMPT, RETRY, Busy, Turn
from queries.web.site import first, form, site_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

TOP = 2  # features of each dictionary that are named at a token


async def run(request: Request) -> Response:
    """The page at `/activations`, by POST: the sentence, its tokens tinted, or the features that fire on them."""
    site = site_of(request)
    fields = await form(request)
    named, text = first(fields, "feature"), first(fields, "text")
    id_ = site.atlas.full_id(named) if named else None
    if id_ is not None:
        site.atlas.locate(id_)
    if not text or len(text) > MAX_PROMPT:
        raise QueryError(f"write a sentence of 1 to {MAX_PROMPT:,} characters")
    result: dict[str, Any] = {}
    error, status, headers = None, 200, {}
    try:
        async for event in site.engine.run(lambda turn: fired(turn, site.atlas, id_, text)):
            if event["event"] in ("error", "stopped"):
                error, status = event["text"], 400
            elif event["event"] == "activations":
                result = event
    except Busy as busy:
        error, status, headers = str(busy), 429, {"retry-after": str(RETRY)}
    shown = {"id": id_, "text": text, "tokens": result.get("tokens", []), "error": error}
    page = site.page(request, "activations.html", status, **shown)
    page.headers.update(headers)
    return page


def fired(turn: Turn, atlas: Atlas, feature: str | None, text: str) -> None:
    """One event: every token of the text, with the features that fire there, the strongest of each dictionary first."""
    from queries.occurrence.activate import activate
    from queries.occurrence.reading import Tokens

    turn.check()
    rows = activate(atlas, turn.model, turn.tokenizer, text, features=feature, top=TOP)
    largest = max((row["activation"] for row in rows), default=1.0)
    at: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        at.setdefault(row["position"], []).append(row)
    tokens = []
    # The text's own tokens, whatever is prepended for a dictionary.
    for position, word in enumerate(Tokens.of(turn.model, turn.tokenizer, text, prepended=False).texts):
        here = at.get(position, [])
        value = max((row["activation"] for row in here), default=0.0)
        # Ten steps of a tint: styles in the page are not allowed, classes are.
        tint = round(10 * value / largest) if feature is not None else 0
        tokens.append({"position": position, "text": word, "value": value, "tint": tint, "rows": here})
    turn.put({"event": "activations", "tokens": tokens})
