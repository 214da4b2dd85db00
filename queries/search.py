"""Features by words: in their labels, in the tokens they fire on, in the tokens they promote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.ids import SITES
from atlas.rows import Rows

if TYPE_CHECKING:
    from atlas.atlas import Atlas

ROW = """f.id AS feature, f.label AS label, f.fires_on AS fires_on, f.promotes AS promotes, f.frequency AS frequency,
       f.max_activation AS max_activation, f.lifecycle AS lifecycle"""
# The longest word alone is looked for first, which is several times faster than all words in every feature; one step a
# WITH is what the embedded engine's parser is quick at. Commas and quotes become spaces, so that a whole token or word
# is what stands between two spaces.
_REST = f"""
WHERE coalesce($site, f.site) = f.site AND coalesce($layer, f.layer) = f.layer
WITH f, toLower(coalesce(f.label, '')) AS label, toLower(coalesce(f.fires_on, '')) AS fires_on,
     toLower(coalesce(f.promotes, '')) AS promotes
WHERE label CONTAINS $longest OR fires_on CONTAINS $longest OR promotes CONTAINS $longest
WITH f, ' ' + label + ' ' AS label, ' ' + fires_on + ' ' AS fires_on,
     ' ' + label + ' ' + fires_on + ' ' + promotes + ' ' AS text
WHERE all(word IN $words WHERE text CONTAINS word)
WITH f, replace(label, ',', ' ') AS label, replace(fires_on, ',', ' ') AS fires_on, replace(text, ',', ' ') AS text
WITH f, replace(label, '"', ' ') AS label, fires_on, replace(text, '"', ' ') AS text
WITH f, replace(label, '“', ' ') AS label, fires_on, replace(text, '“', ' ') AS text
WITH f, replace(label, '”', ' ') AS label, fires_on, replace(text, '”', ' ') AS text
RETURN {ROW},
       all(word IN $words WHERE text CONTAINS (' ' + word + ' ')) AS exact,
       any(word IN $words WHERE fires_on STARTS WITH (' ' + word + ' ')) AS first,
       all(word IN $words WHERE label CONTAINS (' ' + word + ' ')) AS named,
       all(word IN $words WHERE fires_on CONTAINS (' ' + word + ' ')) AS among,
       size(fires_on) - size(replace(fires_on, ' ', '')) AS spaces
ORDER BY exact DESC, first DESC, named DESC, among DESC, spaces, coalesce(frequency, 0.0) DESC, feature
LIMIT $limit
"""
SEARCH = f"MATCH (f:Feature){_REST}"
# Among the features that a server's full-text index finds, which are all that have the words, and others.
AMONG = f"CALL db.index.fulltext.queryNodes('feature_words', $full_text) YIELD node AS f WITH f{_REST}"
# The same columns of features that the index of words named.
NAMED = f"UNWIND $ids AS name MATCH (f:Feature {{id: name}}) RETURN {ROW}"
LARGE = 50_000  # features from which on the index is asked: below, a scan takes less time than importing Arrow
# Whether any feature has words: one is enough to know.
LABELLED = "MATCH (f:Feature) WHERE f.label IS NOT NULL RETURN f.id AS feature LIMIT 1"
COLUMNS = ("feature", "label", "fires_on", "promotes", "frequency", "max_activation", "lifecycle", "exact")


def search(atlas: Atlas, text: str, *, limit: int = 20, site: str | None = None, layer: int | None = None) -> Rows:
    """Features whose label and tokens, taken together, contain every word of the text; case does not matter.

    What counts is how much a word is for the feature, not how large the feature's activations are: whole words and
    tokens come before parts of them; then features that fire on one of the words most (it stands first in `fires_on`,
    which is ordered by activation); then those whose label, then those whose tokens have all of them; of these, those
    that fire on the fewest other words, and then the more frequent ones. Rows have COLUMNS; `exact` tells whether all
    words are whole. Raises QueryError where the text has no word or the site is unknown.

    Example:
        for row in search(atlas, "film", site="res", limit=5):
            print(row["feature"], row["label"])
    """
    words, full_text = checked(text, limit, site), None
    if sum(record.d_sae for record in atlas.dictionaries.values()) >= LARGE:
        indexed = _by_index(atlas, words, limit, site, layer)
        if indexed is not None:
            return indexed
        full_text = atlas.store.full_text(words)
    asked: dict[str, Any] = {"words": words, "longest": max(words, key=len), "site": site, "layer": layer}
    if full_text is None:
        found = atlas.read(SEARCH, limit=limit, **asked)
    else:
        found = atlas.read(AMONG, limit=limit, full_text=full_text, **asked)
    # What rows are ordered by besides is not part of them.
    return Rows(({name: row[name] for name in COLUMNS} for row in found), COLUMNS)


def _by_index(atlas: Atlas, words: list[str], limit: int, site: str | None, layer: int | None) -> Rows | None:
    """The same rows by the folder's index of words; None where there is none."""
    found = None if atlas.words is None else atlas.words.search(words, limit, site, layer)
    if found is None:
        return None
    rows = {row["feature"]: row for row in atlas.read(NAMED, ids=[each.id for each in found])} if found else {}
    return Rows((rows[each.id] | {"exact": each.exact} for each in found), COLUMNS)


def checked(text: str, limit: int, site: str | None) -> list[str]:
    """The words of a text, each once, in lower case; raises QueryError where there is none or an option is wrong."""
    # Sorted: a set's order changes from one process to the next, and of equally long words one is looked for first.
    words = sorted(set(text.lower().split()))
    if not words:
        raise QueryError("search for at least one word")
    if site is not None and site not in SITES:
        raise QueryError(f"a site is one of {', '.join(SITES)}, not {site!r}")
    if limit < 1:
        raise QueryError("the limit must be at least 1")
    return words


def has_labels(atlas: Atlas) -> bool:
    """Whether any feature of the atlas has words."""
    return bool(atlas.read(LABELLED))


def advice(atlas: Atlas, found: list[dict[str, Any]]) -> str | None:
    """What to do where nothing was found because nothing is labelled; None where that is not so."""
    if found or has_labels(atlas):
        return None
    return "no feature has words yet; make some: feature-atlas label --text FILE, --promoted or --import SOURCE"


def people_columns(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The columns that a table for people needs: words have room where nothing is said twice."""
    # A label that is only made of the first tokens says nothing beside them; nor does what all rows share.
    named = any(row["label"] and not (row["fires_on"] or "").startswith(row["label"]) for row in rows)
    partly = any(not row["exact"] for row in rows)
    left_out = {"max_activation", *(() if named or not rows else ("label",)), *(() if partly else ("exact",))}
    return tuple(name for name in COLUMNS if name not in left_out)
