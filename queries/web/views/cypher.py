"""The Cypher box: a user's statement under the guard of `query`, run only when the form is sent, never by a link."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.errors import AtlasError, QueryError
from queries.drawing.svg import svg
from queries.questions.answer_graph import joined_graph
from queries.questions.questions import QUESTIONS, find_question
from queries.web.site import Markup, Site, feature_href, first, form, numbered, site_of

LIMIT, MOST, TIMEOUT = 200, 2000, 10.0  # rows unless asked otherwise, rows at most, seconds
DRAWN = 300  # features of an answer that are joined in a picture
_EXAMPLE = (
    "MATCH (f:Feature {site: 'res'})\nRETURN f.id AS feature, f.label AS label, f.s_res AS s_res\nORDER BY s_res DESC"
)


def box(request: Request) -> Response:
    """The page at `/cypher`, by GET: the box, filled with a named question where one is asked for. Nothing is run."""
    name = request.query_params.get("question")
    statement, parameters = request.query_params.get("statement", _EXAMPLE), ""
    if name:
        question = find_question(name)
        statement = question.cypher.strip()
        known = {key: parameter.default for key, parameter in question.parameters.items()}
        given = dict.fromkeys(question.features, "")
        parameters = json.dumps({**given, **known, "limit": 20})
    return _shown(
        request, statement=statement, parameters=parameters, limit=LIMIT, answer=None, error=None, picture=None
    )


async def run(request: Request) -> Response:
    """The page at `/cypher`, by POST: the answer, or what is wrong with the statement, beneath the box."""
    from starlette.concurrency import run_in_threadpool

    site = site_of(request)
    fields = await form(request)
    statement, parameters = first(fields, "statement"), first(fields, "parameters")
    limit = numbered(first(fields, "limit", str(LIMIT)), "limit", int, 1, MOST)
    values = {"statement": statement, "parameters": parameters, "limit": limit}
    try:
        answer, picture = await run_in_threadpool(_answered, site, statement, parameters, limit)
    except AtlasError as error:
        return _shown(request, **values, answer=None, error=str(error), picture=None, status=400)
    return _shown(request, **values, answer=answer, error=None, picture=picture)


def _answered(site: Site, statement: str, parameters: str, limit: int) -> tuple[dict[str, Any], Markup | None]:
    try:
        values = json.loads(parameters) if parameters.strip() else {}
    except ValueError as error:
        raise QueryError(f'parameters are a JSON object like {{"layer": 9}} ({error})') from None
    if not isinstance(values, dict):
        raise QueryError('parameters are a JSON object like {"layer": 9}')
    answer = site.atlas.answer(statement, values, limit=limit, timeout=TIMEOUT)
    known = features_of(site, answer.rows)
    cells = [
        [(_cell(value), value if isinstance(value, str) and value in known else None) for value in row.values()]
        for row in answer.rows
    ]
    picture = None
    if 1 < len(known) <= DRAWN:
        graph = joined_graph(site.atlas, known)
        if graph.edges:
            picture = Markup(svg(graph.figure(), link=feature_href))
    return {"columns": answer.columns, "rows": cells, "more": answer.more, "features": sorted(known)}, picture


def features_of(site: Site, rows: Sequence[dict[str, Any]]) -> set[str]:
    """The values among rows that are ids of features."""
    found = set()
    for value in {value for row in rows for value in row.values() if isinstance(value, str)}:
        name, _, index = value.rpartition("/")
        record = site.atlas.dictionaries.get(name)
        if record is not None and index.isdigit() and int(index) < record.d_sae:
            found.add(value)
    return found


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, str | int):
        return "" if value is None else str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _shown(request: Request, *, status: int = 200, **values: Any) -> Response:
    questions = [(name, question.about) for name, question in QUESTIONS.items()]
    return site_of(request).page(request, "cypher.html", status, **values, questions=questions, timeout=TIMEOUT)
