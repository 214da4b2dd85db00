"""Features by words: in their labels, in the tokens they fire on, in the tokens they promote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.ids import SITES

if TYPE_CHECKING:
    from atlas.atlas import Atlas

ROW = """f.id AS feature, f.label AS label, f.fires_on AS fires_on, f.promotes AS promotes, f.frequency AS frequency,
       f.max_activation AS max_activation, f.lifecycle AS lifecycle"""
# The longest word alone is looked for first, which is several times faster than all words in every feature; one step a
# WITH is what the embedded engine's parser is quick at. Commas and quotes become spaces, so that a whole token or word
# is what stands between two spaces.
SEARCH = f"""
MATCH (f:Feature)
WHERE coalesce($site, f.site) = f.site AND coalesce($layer, f.layer) = f.layer
WITH f, toLower(coalesce(f.label, '')) AS label, toLower(coalesce(f.fires_on, '')) AS fires_on,
     toLower(coalesce(f.promotes, '')) AS promotes
WHERE label CONTAINS $longest OR fires_on CONTAINS $longest OR promotes CONTAINS $longest
WITH f, ' ' + label + ' ' + fires_on + ' ' + promotes + ' ' AS text
WHERE all(word IN $words WHERE text CONTAINS word)
WITH f, replace(text, ',', ' ') AS text
WITH f, replace(text, '"', ' ') AS text
WITH f, replace(text, '“', ' ') AS text
WITH f, replace(text, '”', ' ') AS text
RETURN {ROW},
       all(word IN $words WHERE text CONTAINS (' ' + word + ' ')) AS exact
ORDER BY exact DESC, coalesce(max_activation, 0.0) DESC, coalesce(frequency, 0.0) DESC, feature
LIMIT $limit
"""
COLUMNS = ("feature", "label", "fires_on", "promotes", "frequency", "max_activation", "lifecycle", "exact")


def search(
    atlas: Atlas, text: str, *, limit: int = 20, site: str | None = None, layer: int | None = None
) -> list[dict[str, Any]]:
    """Features whose label and tokens, taken together, contain every word of the text; case does not matter.

    Whole words and tokens come before parts of them, then the largest activation first. Rows have COLUMNS; `exact`
    tells whether all words are whole. Raises QueryError where the text has no word or the site is unknown.

    Example:
        for row in search(atlas, "film", site="res", limit=5):
            print(row["feature"], row["label"])
    """
    words = checked(text, limit, site)
    return atlas.read(SEARCH, words=words, longest=max(words, key=len), site=site, layer=layer, limit=limit)


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
