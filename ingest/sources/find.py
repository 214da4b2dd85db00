"""The dictionaries that addresses stand for: folders, SAELens releases, `release/sae_id`.

1. A path that exists is a folder; any other word is a SAELens release, or a release and an id or a glob over ids.
2. Only configurations are read, so that planning is cheap; weights are read when a dictionary is written.
3. Each gets its id: Neuronpedia's where the metadata has one, else `{model}/{number}-{site}-{width}`.
4. Filters, then the checks that need no weights: equal ids, widths of one model's stream.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from atlas.errors import IngestError, ModelError
from atlas.folder.dictionary import Dictionary
from atlas.ids import MID, RES, dictionary_id, is_id
from atlas.ids import set_name as default_set
from hooked.families import hub_name, short_name
from hooked.hook_names import asks_family, canonical_hook, depth_of, is_mid, place_of, site_of, split_hook
from ingest.sources.configuration import Configuration
from ingest.sources.local import find_folders
from ingest.sources.model_weights import known_family, known_width
from ingest.sources.selection import EVERYTHING, Selection
from ingest.sources.tensors import Tensors

_log = logging.getLogger(__name__)


class Origin(Protocol):
    """Where one dictionary's configuration and weights come from."""

    @property
    def address(self) -> str:
        """What names it again: an absolute folder or `release/sae_id`."""
        ...

    @property
    def configuration(self) -> Configuration:
        """What is known of it without its weights."""
        ...

    @property
    def release(self) -> str | None:
        """SAELens release."""
        ...

    @property
    def sae_id(self) -> str | None:
        """Id within the release."""
        ...

    @property
    def variant(self) -> str:
        """What tells it from others at its place in its release, as a part of a name; empty where nothing does."""
        ...

    def files(self) -> list[Path]:
        """The files that hold its weights, fetched where they are not here yet."""
        ...

    def size(self) -> tuple[int | None, bool]:
        """Bytes of its weights, None where they are not known, and whether they are here; nothing is fetched."""
        ...

    def tensors(self) -> AbstractContextManager[Tensors]:
        """Its tensors."""
        ...


@dataclass(frozen=True)
class Source:
    """One dictionary that could be ingested; no weights have been read."""

    id: str  # `{model}/{number}-{set}`
    model: str  # first part of the id
    model_name: str  # the model as it can be loaded: hub name or folder
    set: str  # last part of the id
    site: str  # res, mlp or att
    layer: int  # block it belongs to (atlas.folder.dictionary.Dictionary.layer)
    depth: int  # order along the forward pass
    d_model: int | None  # width of the residual stream; None: head-space rows of a model whose config is not at hand
    origin: Origin
    configuration: Configuration  # everything it says, hooks by TransformerLens's names

    @property
    def address(self) -> str:
        """What names it again: an absolute folder or `release/sae_id`."""
        return self.origin.address

    @property
    def hook_name(self) -> str:
        """SAELens name of the place its decoder rows are written to."""
        return self.configuration.hook_name

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.configuration.d_sae

    @property
    def in_head_space(self) -> bool:
        """Whether its rows must be mapped into the residual stream (`hook_z`)."""
        return place_of(self.hook_name).attribute == "o_proj"

    @property
    def bytes(self) -> int:
        """Size of its rows as float32, decoder and encoder: what they take in an atlas at most."""
        width = self.d_model or self.configuration.d_out
        return 4 * self.d_sae * (width + self.configuration.d_in + 3)


def find_sources(addresses: Sequence[str], selection: Selection = EVERYTHING) -> list[Source]:
    """The selected dictionaries of those that `addresses` stand for, ordered by depth.

    What a release holds several of at one place is chosen by `ingest.sources.releases.choices`, a run's checkpoint by
    `ingest.sources.local`.

    Raises IngestError where an address stands for nothing, a dictionary cannot be taken in, the selection leaves none,
    two would share an id, or widths contradict each other.
    """
    origins: dict[str, Origin] = {}
    for address in addresses:
        # By address: what two of the words stand for is taken once.
        origins |= {origin.address: origin for origin in _origins(address, selection)}
    found = [_source(origin, selection.model, selection.set_name) for origin in origins.values()]
    if selection.set_name is not None and len({(source.site, is_mid(source.hook_name)) for source in found}) > 1:
        found = [_source(origin, selection.model, selection.set_name, with_site=True) for origin in origins.values()]
    sources = [source for source in found if selection.takes(source.layer, source.site, source.d_sae)]
    if not sources:
        names = ("layer", "site", "d_sae")
        there = "; ".join(f"{name} {sorted({getattr(source, name) for source in found})}" for name in names)
        raise IngestError(f"no dictionary has {str(selection) or 'been named'}; there: {there if found else 'none'}")
    sources = _told_apart(sources)
    _check_ids(sources)
    check_models(sources)
    _check_widths(sources)
    return sorted(sources, key=lambda source: (source.model, source.depth, source.id))


def source_sha256(source: Source) -> str:
    """SHA-256 of its weights file.

    Of the digests of all of them where there are several, and of constants that are folded into the rows but stand
    elsewhere: equal digests, equal rows.
    """
    digests = []
    for path in source.origin.files():
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise IngestError(f"{path} cannot be read ({error.strerror})") from None
    configuration = source.configuration
    if configuration.norm_factor is not None or configuration.rescale:
        # They shape the rows and stand in no weights file.
        digests.append(f"{configuration.norm_factor} {configuration.rescale}")
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _origins(address: str, selection: Selection) -> Sequence[Origin]:
    path = Path(address).expanduser()
    if path.exists():
        return find_folders(path, selection.checkpoint)
    # Plainly a path: SAELens's list has no answer to it that would help.
    if address.startswith((".", "/", "~")):
        raise IngestError(f"there is no folder {address}")
    from ingest.sources.registry import find_entries

    return find_entries(address, selection)


def _source(origin: Origin, model: str | None, set_: str | None, *, with_site: bool = False) -> Source:
    configuration = origin.configuration
    named = model or configuration.model_name
    if not named:
        raise IngestError(
            f"{origin.address} does not name its model, or its checkpoint by number only; say which with --model "
            "NAME_OR_FOLDER, or NAME@REVISION"
        )
    folder = Path(named).expanduser()
    # Only a folder that the user names: one that metadata name may be of its trainer's machine.
    model_name = str(folder.resolve()) if model and folder.exists() else hub_name(named)
    try:
        configuration = _placed(configuration, model_name)
        site, layer = site_of(configuration.hook_name)
        place_of(configuration.hook_name_in)  # transcoders' encoders read other places, which must be known as well
    except IngestError as error:
        raise IngestError(f"{origin.address}: {error}") from None
    number, _ = split_hook(configuration.hook_name)
    # By what the metadata say: with a folder for --model the ids stay what they are with the hub's name.
    own_name = short_name(configuration.model_name or named)
    place = MID if is_mid(configuration.hook_name) else site
    default = dictionary_id(own_name, number, default_set(place, configuration.d_sae))
    short, _, rest = (configuration.neuronpedia_id or default).partition("/")
    label, _, own = rest.partition("-")
    if set_ is not None:
        own = f"{place}-{set_}" if with_site else set_
    in_head_space = place_of(configuration.hook_name).attribute == "o_proj"
    if not is_id(id_ := f"{short}/{label}-{own}"):
        raise IngestError(f"{origin.address} would be named {id_}, which is no name of a folder; name it with --set")
    return Source(
        id=id_,
        model=short,
        model_name=model_name,
        set=own,
        site=site,
        layer=layer,
        depth=depth_of(configuration.hook_name),
        d_model=known_width(model_name) if in_head_space else configuration.d_out,
        origin=origin,
        configuration=configuration,
    )


def _placed(configuration: Configuration, model_name: str) -> Configuration:
    """Its hooks by TransformerLens's names; where the same name means two things, the model's family decides."""
    names = (configuration.hook_name, configuration.hook_name_in)
    if not any(asks_family(name) for name in names):
        return configuration
    try:
        family = known_family(model_name)
    except ModelError as error:
        if site_of(names[0])[0] != RES or is_mid(names[0]):
            raise IngestError(f"what hook {names[0]!r} is depends on the model's family: {error}") from None
        family = None  # a block's output is the stream in every family
    hook_name, hook_name_in = (canonical_hook(name, family) for name in names)
    if family is None and (site_of(hook_name)[0] != RES or is_mid(hook_name)):
        _log.warning(
            "the configuration of %s is not at hand: %s is taken for %s, as in models like Llama and GPT-2",
            *(model_name, names[0], hook_name),
        )
    return replace(configuration, hook_name=hook_name, hook_name_in=hook_name_in)


def _told_apart(sources: list[Source]) -> list[Source]:
    """Sources of one id, taken on purpose (two L0s, two seeds), with what their own ids say in the set's name."""
    shared = Counter(source.id for source in sources)
    return [
        replace(source, id=f"{source.id}-{source.origin.variant}", set=f"{source.set}-{source.origin.variant}")
        if shared[source.id] > 1 and source.origin.variant
        else source
        for source in sources
    ]


def _check_ids(sources: Sequence[Source]) -> None:
    first: dict[str, Source] = {}
    for source in sources:
        other = first.setdefault(source.id, source)
        if other is not source:
            raise IngestError(
                f"{other.address} and {source.address} would both be {source.id}; take one of them, "
                "or ingest one alone under another name with --set NAME"
            )


def check_models(named: Iterable[Source | Dictionary]) -> None:
    """Raise IngestError where two models would share a short name, and with it ids and edges.

    A model may be known by its hub name and by a folder, but not by two of either.
    """
    first: dict[tuple[str, bool], Source | Dictionary] = {}
    for each in named:
        in_folder = Path(each.model_name).is_absolute()
        other = first.setdefault((each.model, in_folder), each)
        same = (
            other.model_name == each.model_name
            if in_folder
            else (other.model_name.casefold() == each.model_name.casefold())
        )
        if not same:
            raise IngestError(
                f"{other.model_name} (of {other.id}) and {each.model_name} (of {each.id}) are two models, both to "
                f"be called {each.model}; take each into an atlas of its own (-a FOLDER)"
            )


def _check_widths(sources: Sequence[Source]) -> None:
    widths: dict[str, tuple[int, str]] = {}
    for source in sources:
        if source.d_model is None:
            continue
        known = known_width(source.model_name)
        if known is not None and known != source.d_model:
            raise IngestError(
                f"{source.address} writes {source.d_model} numbers, but the residual stream of {source.model_name} "
                f"has {known}; is that its model (--model)?"
            )
        width, other = widths.setdefault(source.model, (source.d_model, source.address))
        if width != source.d_model:
            raise IngestError(
                f"{other} and {source.address} both name the model {source.model}, but write {width} and "
                f"{source.d_model} numbers; one of them belongs to another model (--model)"
            )
