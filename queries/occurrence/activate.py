"""Which features fire at each token of a text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.ids import feature_id
from atlas.rows import Rows
from atlas.schema import FEATURE
from hooked.encoder import Encoder, not_run
from queries.occurrence.reading import Reading, model_of

if TYPE_CHECKING:
    import torch

    from atlas.atlas import Atlas
    from atlas.folder.dictionary import Dictionary

COLUMNS = ("position", "token", "feature", "activation", "relative")
TOP = 3
LARGEST = f"MATCH (f:{FEATURE} {{id: $id}}) RETURN f.max_activation AS largest"
_log = logging.getLogger(__name__)


def activate(
    atlas: Atlas,
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    features: str | Sequence[str] | None = None,
    top: int = TOP,
) -> Rows:
    """The features that fire at each token of a text, the strongest of each dictionary first.

    Attention sinks are left out as they are for labels, and said in the log; so are dictionaries whose activations
    cannot be had.

    Args:
        model: a plain Hugging Face causal LM, its name or folder, or None: the one that the dictionaries name.
        tokenizer: its tokenizer; None where the model is loaded here.
        features: ids of those to look at; None: all of all dictionaries.
        top: without `features`, so many of each dictionary at each token.

    Returns:
        Rows of COLUMNS: position (of the text's tokens, from 0), token, feature, activation (as the dictionary counts
        it, above 0) and relative (to the largest activation on record; None where there is none).

    Raises UnknownFeature, QueryError where the text is empty or too long or `top` is below 1, PlanError where a named
    feature's activations cannot be had, ModelError.

    Example:
        for row in activate(atlas, None, None, "The film was shown in every village."):
            print(row["token"], row["feature"], row["activation"])
    """
    if top < 1:
        raise QueryError("the number of features must be at least 1")
    wanted = _wanted(atlas, features)
    records = {id_: atlas.dictionaries[id_] for id_ in wanted}
    model, tokenizer = model_of(atlas, records, model, tokenizer)
    reading = Reading.of(model, tokenizer, text, records)
    rows: list[dict[str, Any]] = []
    for id_, indices in wanted.items():
        encoder = Encoder.of(records[id_], atlas.rows(id_), indices).to(reading.hidden[id_].device)
        values = encoder(reading.hidden[id_]).values
        values[reading.sinks[id_].to(values.device)] = 0
        for position, number, value in _firing(values, len(indices) if indices else top):
            feature = feature_id(id_, indices[number] if indices else number)
            row = {"position": position, "token": reading.tokens[position], "feature": feature, "activation": value}
            rows.append(row)
    # Dictionaries are in the order of their depth, and stay so within a token.
    rows.sort(key=lambda row: row["position"])
    return Rows(_relative(atlas, rows), COLUMNS)


def dictionaries_of(atlas: Atlas, features: str | Sequence[str] | None = None) -> dict[str, Dictionary]:
    """The dictionaries that `activate` looks at: the features' own, or all that have activations; raises as it does."""
    return {id_: atlas.dictionaries[id_] for id_ in _wanted(atlas, features)}


def _wanted(atlas: Atlas, features: str | Sequence[str] | None) -> dict[str, list[int] | None]:
    """The rows to look at by dictionary (None: all), in the order of the dictionaries' depth."""
    if features is None:
        reasons = {id_: not_run(d) for id_, d in atlas.dictionaries.items()}
        for reason in filter(None, reasons.values()):
            _log.warning("%s", reason)
        if all(reasons.values()):
            raise QueryError("no dictionary of the atlas has activations that can be had")
        return {id_: None for id_, reason in reasons.items() if reason is None}
    named = [features] if isinstance(features, str) else list(features)
    if not named:
        raise QueryError("name at least one feature, or none at all for all of them")
    places = [atlas.locate(feature) for feature in dict.fromkeys(map(atlas.full_id, named))]
    chosen = {record.id for record, _ in places}
    return {id_: [i for d, i in places if d.id == id_] for id_ in atlas.dictionaries if id_ in chosen}


def _firing(values: torch.Tensor, most: int) -> list[tuple[int, int, float]]:
    """Position, column and activation of the `most` largest at each position, [positions, n]; those above 0."""
    best = values.topk(min(most, values.shape[1]), dim=1)
    return [
        (position, number, value)
        for position, (numbers, row) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        for number, value in zip(numbers, row, strict=True)
        if value > 0
    ]


def _relative(atlas: Atlas, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with each activation relative to the feature's largest on record."""
    features = list(dict.fromkeys(row["feature"] for row in rows))
    found = atlas.read_each(LARGEST, [{"id": feature} for feature in features])
    largest = {
        feature: answer[0]["largest"] if answer else None for feature, answer in zip(features, found, strict=True)
    }
    # A feature that never fired on the labels' text has 0 on record, and nothing is relative to that.
    return [row | {"relative": row["activation"] / m if (m := largest[row["feature"]]) else None} for row in rows]
