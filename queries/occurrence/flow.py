"""The flow graph of one occurrence: where a feature's activation at one token comes from, by ordinary dictionaries.

1. The model reads the text once; at the token every dictionary says which features fire and what each adds there
   (`queries.occurrence.firing`).
2. A residual feature's pre-activation is affine in the stream: z = r · x + c. The stream x is the one that an earlier
   dictionary reads plus what attention and MLPs added since, so that z is a sum over the features that fire in them
   (activation × push: r · what the feature adds), over their biases, over what they do not reconstruct (`error`), and
   over what no dictionary reads (`unread`). Each part is a share of z; they add up to 1.
3. From the target to the k largest parts of each dictionary, and from those in the stream on, back to the first layer.

Exact along the path that passes no layer. What a predecessor does through the layers in between, through attention at
later tokens or through a norm, is not in it; `verify` takes each away in a forward pass (`queries.occurrence.removal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.errors import QueryError
from atlas.folder.dictionary import Dictionary
from atlas.ids import RES, feature_id
from atlas.schema import EDGE_OF_SITE, FEATURE
from hooked.encoder import Encoder, not_run
from hooked.hookpoints import resolve
from hooked.reading import sinks, stream_after
from queries.lineage.graph import Edge, Lineage, Node
from queries.lineage.walk import SEED, state_of
from queries.occurrence.firing import READ, Firing, points_of
from queries.occurrence.reading import Tokens, last_block, model_of, states
from queries.occurrence.removal import removals
from queries.occurrence.sources import sources_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

RANKS = "|".join(EDGE_OF_SITE.values())
STORED = (
    f"MATCH (:{FEATURE} {{id: $source}})-[r:{RANKS}]->(:{FEATURE} {{id: $target}}) "
    "RETURN r.rank AS rank, r.forward_rank AS forward_rank"
)
_PARTS = ("other", "bias", "error", "unread")


@dataclass(frozen=True)
class FiringNode(Node):
    """A feature that fires at the token. Parts are shares of its pre-activation; None where it was not followed."""

    activation: float | None = None
    pre_activation: float | None = None  # before threshold and choice among the k largest
    other: float | None = None  # of features that fire and are not on the graph
    bias: float | None = None  # its own, and those of the dictionaries before it
    error: float | None = None  # what these do not reconstruct
    unread: float | None = None  # what none of them reads

    @property
    def state(self) -> str:
        """Activation, and the parts that no edge stands for."""
        known = {name: getattr(self, name) for name in _PARTS if getattr(self, name) is not None}
        # Rounded to a hundredth; + 0.0, or a small negative one would be written -0.00.
        parts = [f"{name} {round(value, 2) + 0.0:.2f}" for name, value in known.items()]
        return "  ".join([f"{self.activation or 0:.3g}", " ".join(parts)]).rstrip()


@dataclass(frozen=True)
class FiringEdge(Edge):
    """A predecessor at the token: `push` as it is there."""

    share: float = 0.0  # of the target's pre-activation: activation × push
    predicted: float | None = None  # the same in the target's units; with `verify`
    measured: float | None = None  # by how much it falls when the predecessor is taken away in a forward pass
    left: float | None = None  # share of the target's activation that is left then

    @property
    def weight(self) -> float:
        """Its share."""
        return self.share

    @property
    def shown(self) -> str:
        """Its share; where it was verified, the measured one behind it, and `gone` where nothing is left."""
        if self.measured is None or self.predicted is None:
            return f"{self.share:.2f}"
        found = self.share * self.measured / self.predicted
        return f"{self.share:.2f} ({found:.2f}{', gone' if self.left == 0 else ''})"


def flow(
    atlas: Atlas,
    model: Any,
    tokenizer: Any,
    text: str,
    feature: str,
    *,
    token: int | None = None,
    k: int = 1,
    back: int | None = None,
    verify: bool = False,
) -> Lineage:
    """The flow graph of a residual feature at one token of a text; see `queries.lineage.walk.lineage`.

    Raises QueryError where the feature is none of the stream, does not fire there or the token is not in the text;
    UnknownFeature, PlanError (an encoder that is not run), ModelError.

    Example:
        graph = lineage(atlas, "smollm2-135m-instruct/9-res-2k/2018", on="The film was shown in every village.")
        print([(edge.target, edge.share) for edge in graph.edges])
    """
    target, index = atlas.locate(feature)
    if target.site != RES:
        raise QueryError(
            f"{feature} is a feature of {target.site}: what a module writes is no sum of earlier features; name a "
            "residual feature, whose graph shows what modules wrote"
        )
    records = _involved(atlas, target)
    model, tokenizer = model_of(atlas, records, model, tokenizer)
    given = Tokens.of(model, tokenizer, text, prepended=target.prepend_bos)
    points: dict[Any, Any] = {"stream": resolve(model, stream_after(target.layer))}
    for record in records.values():
        points |= points_of(model, record)
    seen = states(model, given.ids, points, last_block(records.values()))
    sunk = sinks(seen["stream"][:, given.first :], torch.ones(1, len(given.texts), dtype=torch.bool))[0]
    hidden = seen[target.id, READ][0, given.first :]
    position = _position(atlas, target, index, hidden, sunk, given.texts, token)
    walk = _Walk(atlas, model, records, seen, given.first + position, k)
    walk.back([(target.id, index)], back)
    if verify:
        walk.verify(given.upto(position))
    return walk.graph(feature, text, position, given.texts[position], {"k": k, "back": back, "verify": verify})


def _involved(atlas: Atlas, target: Dictionary) -> dict[str, Dictionary]:
    """The target's dictionary and all that it leads back to."""
    same = (d for d in atlas.dictionaries.values() if d.model == target.model)
    # Behind another start the tokens hold something else: its dictionaries are not read in one pass with this one's.
    able = [d for d in same if d.prepend_bos == target.prepend_bos and not_run(d) is None]
    found, streams = {target.id: target}, [target]
    while streams:
        sources = [d for d in sources_of(streams.pop(), able) if d.id not in found]
        found |= {d.id: d for d in sources}
        streams += [d for d in sources if d.site == RES]
    return found


def _position(
    atlas: Atlas,
    target: Dictionary,
    index: int,
    hidden: torch.Tensor,
    sunk: torch.Tensor,
    tokens: tuple[str, ...],
    token: int | None,
) -> int:
    """The token asked for, or where the feature is strongest; raises QueryError where it does not fire."""
    if token is not None and not 0 <= token < len(tokens):
        raise QueryError(f"the text has tokens 0 to {len(tokens) - 1}, not {token}")
    values = Encoder.of(target, atlas.rows(target.id), [index]).to(hidden.device)(hidden).values[:, 0].cpu()
    firing = [i for i in torch.argsort(-values, stable=True).tolist() if values[i] > 0 and not sunk[i]]
    where = ", ".join(f"{i} ({tokens[i].strip()!r})" for i in firing[:3])
    name = feature_id(target.id, index)
    if token is not None and values[token] <= 0:
        elsewhere = f"it does at {where}" if firing else "nor anywhere else in this text"
        raise QueryError(f"{name} does not fire at token {token} ({tokens[token].strip()!r}); {elsewhere}")
    if token is None and not firing:
        raise QueryError(f"{name} does not fire on this text; `show` says what it fires on")
    return firing[0] if token is None else token


class _Walk:
    """What has been reached; every dictionary is looked at once."""

    def __init__(
        self, atlas: Atlas, model: Any, records: Mapping[str, Dictionary], seen: Any, column: int, k: int
    ) -> None:
        self._atlas, self._model, self._records = atlas, model, records
        self._seen, self._column, self._k = seen, column, k
        self._firing: dict[str, Firing] = {}
        self.parts: dict[tuple[str, int], dict[str, float]] = {}  # of features that were followed
        self.reached: dict[tuple[str, int], float] = {}  # activation of all on the graph
        self.edges: dict[tuple[tuple[str, int], tuple[str, int]], dict[str, float]] = {}

    def back(self, frontier: list[tuple[str, int]], steps: int | None) -> None:
        """Follow these, and what leads to them along the stream, layer by layer."""
        for each in frontier:
            self.reached[each] = self._activation(*each)
        while frontier:
            found = [self._explain(*each, streams=steps != 0) for each in frontier if each not in self.parts]
            earlier = dict.fromkeys(each for some in found for each in some)
            frontier = [each for each in earlier if self._records[each[0]].site == RES]
            # After the last step the features that were reached still show what modules wrote into them.
            steps = None if steps is None else max(0, steps - 1)

    def firing(self, dictionary: str) -> Firing:
        """A dictionary at the token."""
        if dictionary not in self._firing:
            record = self._records[dictionary]
            self._firing[dictionary] = Firing.of(self._atlas, self._model, record, self._seen, self._column)
        return self._firing[dictionary]

    def _activation(self, dictionary: str, index: int) -> float:
        here = self.firing(dictionary)
        return float(here.values[np.flatnonzero(here.active == index)[0]])

    def _explain(self, dictionary: str, index: int, *, streams: bool) -> list[tuple[str, int]]:
        """Take a target's pre-activation apart; returns the predecessors that were added."""
        here = self.firing(dictionary)
        weights, bias = here.encoder.affine(here.read, [index])
        reads, total = weights[0], float(weights[0] @ here.read.double() + bias[0])
        parts = dict.fromkeys(_PARTS, 0.0) | {"pre_activation": total}
        unread, added = here.there.clone(), []
        parts["bias"] = float(bias[0])
        for source in sources_of(here.record, self._records.values()):
            earlier = self.firing(source.id)
            unread -= earlier.there
            parts["bias"] += float(earlier.base @ reads)
            parts["error"] += float(earlier.error @ reads)
            given = (earlier.writes @ reads).numpy()
            shown = [n for n in np.argsort(-given, kind="stable")[: self._k].tolist() if given[n] > 0]
            if source.site == RES and not streams:
                shown = []
            parts["other"] += float(given.sum() - given[shown].sum())
            for n in shown:
                other = (source.id, int(earlier.active[n]))
                self.reached[other] = float(earlier.values[n])
                self.edges[(dictionary, index), other] = {"share": given[n] / total, "predicted": float(given[n])}
                added.append(other)
        parts["unread"] = float(unread @ reads)
        self.parts[dictionary, index] = {n: v if n == "pre_activation" else v / total for n, v in parts.items()}
        return added

    def verify(self, ids: torch.Tensor) -> None:
        """Take each predecessor away in a forward pass, and see by how much its targets fall."""
        for pair, found in removals(self._model, ids, self._records, self.edges, self.firing).items():
            self.edges[pair] |= found

    def graph(self, feature: str, text: str, position: int, token: str, options: dict[str, Any]) -> Lineage:
        """All of it as a lineage."""
        ids = {each: feature_id(*each) for each in self.reached}
        found = self._atlas.read_each(SEED, [{"id": id_} for id_ in ids.values()])
        nodes = []
        for each, rows in zip(ids, found, strict=True):
            values: dict[str, Any] = rows[0] | {"activation": self.reached[each]} | self.parts.get(each, {})
            nodes.append(FiringNode(**values))
        nodes.sort(key=lambda node: (node.depth, node.id))
        place = {node.id: i for i, node in enumerate(nodes)}
        edges = sorted(self._edges(ids), key=lambda edge: (place[edge.source], place[edge.target]))
        on = {"text": text, "position": position, "token": token}
        state = state_of(self._atlas, next(node for node in nodes if node.id == feature))
        notes = [f"at token {position} ({token.strip()!r}); numbers are shares of the later feature's pre-activation"]
        notes += ["in brackets: what a forward pass without the earlier feature takes away"] * options["verify"]
        return Lineage(feature, tuple(nodes), tuple(edges), {"on": on, **options}, state=state, notes=tuple(notes))

    def _edges(self, ids: Mapping[tuple[str, int], str]) -> list[FiringEdge]:
        ends = [{"source": ids[later], "target": ids[earlier]} for later, earlier in self.edges]
        stored = self._atlas.read_each(STORED, ends) if ends else []
        made = []
        for ((later, earlier), values), end, rows in zip(self.edges.items(), ends, stored, strict=True):
            rank = rows[0] if rows else {"rank": None, "forward_rank": None}
            units = [self.firing(each[0]).rows.decoder[each[1]].astype(np.float64) for each in (later, earlier)]
            told: dict[str, Any] = {**end, **rank, "type": EDGE_OF_SITE[self._records[earlier[0]].site]}
            told |= {"similarity": float(units[0] @ units[1]), "push": values["predicted"] / self.reached[earlier]}
            told |= values if "measured" in values else {"share": values["share"]}
            made.append(FiringEdge(**told))
        return made
