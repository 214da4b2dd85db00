"""A sentence typed beside a feature: at which of its tokens the feature fires, and how strongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.errors import QueryError
from queries.web.engine import MAX_PROMPT, RETRY, Busy, Turn
from queries.web.site import first, form, site_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas


async def run(request: Request) -> Response:
    """The page at `/activations`, by POST: the sentence, its tokens tinted."""
    site = site_of(request)
    fields = await form(request)
    id_, text = site.atlas.full_id(first(fields, "feature")), first(fields, "text")
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


def fired(turn: Turn, atlas: Atlas, feature: str, text: str) -> None:
    """Run the model over the text as its dictionary was trained to see it; one event with every token's activation."""
    import torch

    from hooked.capture import captured
    from hooked.encoder import Encoder
    from hooked.hookpoints import read_point

    record, index = atlas.locate(feature)
    encoder = Encoder.of(record, atlas.rows(record.id), [index])
    ids = list(turn.tokenizer(text)["input_ids"])
    start = turn.tokenizer.bos_token_id
    if record.prepend_bos and start is not None and ids[:1] != [start]:
        ids = [start, *ids]
    turn.check()
    with torch.inference_mode(), captured({"read": read_point(turn.model, record)}) as seen:
        turn.model(input_ids=torch.tensor([ids], device=turn.model.device))
        values = encoder.to(turn.model.device)(seen["read"][0]).values[:, 0].float().tolist()
    largest = max(max(values), 1e-9)
    tokens = [
        # Ten steps of a tint: styles in the page are not allowed, classes are.
        {
            "position": position,
            "text": turn.tokenizer.decode([id_]),
            "value": value,
            "tint": round(10 * max(value, 0.0) / largest),
        }
        for position, (id_, value) in enumerate(zip(ids, values, strict=True))
    ]
    turn.put({"event": "activations", "tokens": tokens})
