"""Walk SAELens's whole list of releases by names and recorded configurations alone: what each is worth to a user.

`python tests/registry_walk.py` prints, a release a row and in all, how many of its dictionaries are ingested as typed
(the release's name), how many by a choice (an option, a glob), and how many are refused, with the reason. No weight is
read, nothing is asked of a network: what a loader would fetch is written here in the form that its releases have.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from atlas.errors import IngestError
from ingest.sources import registry
from ingest.sources.find import find_sources
from ingest.sources.releases.listing import read_release, release_names

_WIDTHS = {"270m": (640, 1024), "1b": (1152, 1024), "4b": (2560, 2048), "12b": (3840, 4096), "27b": (5376, 4096)}
_CLASSES = {"topk": "AutoEncoderTopK", "gated": "GatedAutoEncoder", "vanilla": "AutoEncoder", "standard": "AutoEncoder"}


@dataclass
class Walked:
    """What became of one release's dictionaries, in numbers."""

    release: str
    typed: int = 0  # ingested as typed
    choice: int = 0  # ingested by an option, an id or a glob
    refused: int = 0
    reasons: set[str] = field(default_factory=set)


def walk() -> list[Walked]:
    """Every release of the list."""
    with recorded():
        return [_walked(release) for release in release_names()]


def _walked(release: str) -> Walked:
    walked = Walked(release)
    total = len(read_release(release)["saes"])
    try:
        every = find_sources([f"{release}/*"])
    except IngestError as error:
        walked.refused = total
        walked.reasons.add(str(error))
        return walked
    try:
        walked.typed = len(find_sources([release]))
    except IngestError as error:
        walked.reasons.add(str(error))
    walked.choice = len(every) - walked.typed
    walked.refused = total - len(every)
    return walked


@contextmanager
def recorded() -> Iterator[None]:
    """Let every loader find a configuration of its own form."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    folder = tempfile.TemporaryDirectory()

    def fetch(repo_id: str, filename: str, **_: Any) -> str:
        written = Path(folder.name) / filename.rpartition("/")[2]
        written.write_text(json.dumps(_configuration(repo_id, filename)))
        return str(written)

    with ExitStack() as stack:
        stack.enter_context(folder)
        stack.enter_context(patch.object(registry, "fetch", lambda repository, name: Path(fetch(repository, name))))
        stack.enter_context(patch.object(registry, "offline_where_unreachable", lambda: False))
        stack.enter_context(patch.object(registry, "_shapes_from_cache", nullcontext))
        stack.enter_context(patch.object(loaders, "hf_hub_download", fetch))
        stack.enter_context(patch.object(loaders, "get_safetensors_tensor_shapes", _shapes))
        yield


def _configuration(repository: str, name: str) -> dict[str, Any]:
    """The configuration file of one dictionary, in the form that its loader reads."""
    path, _, file = name.rpartition("/")
    layer = next((number for number in re.findall(r"(?:layer_?|[Ll]|blocks\.|^)(\d+)", path or file)), "0")
    match file:
        case "cfg.json":
            return {"hook_name": f"blocks.{layer}.{_kind(repository, path)}", "d_in": 768, "d_sae": _d_sae(path)} | {
                "model_name": "gpt2-small"
            }
        case "hyperparams.json":
            kind = {"R": "hook_resid_post", "M": "hook_mlp_out", "A": "hook_attn_out"}[path.split("-")[3][-1]]
            norm = {"dataset_average_activation_norm": {"in": 8.0}, "jump_relu_threshold": 0.1}
            layer = path.split("-")[3].strip("LRMA")
            return norm | {"d_model": 4096, "d_sae": 32768, "hook_point_in": f"blocks.{layer}.{kind}"}
        case "wandb-config.yaml":
            return {"d_model": {"value": 2560}, "d_feature": {"value": 163840}, "batch_size": {"value": 1}}
        case "config.yaml":
            return {"model_name": "Qwen/Qwen3-4B"}
        case "config.json" if "R1-Distill" in repository:
            return {"d_model": 4096, "expansion_factor": 8, "hook_point_in": f"blocks.{layer}.hook_resid_post"}
        case "config.json" if "gemma-scope" in repository:
            return {"architecture": "jump_relu", "model_name": repository.split("/")[1].replace("scope-2", "v3")}
        case "config.json":
            trainer = {"layer": int(layer), "activation_dim": 512, "dict_size": 4096, "lm_name": repository, "k": 20}
            kind = next((kind for word, kind in _CLASSES.items() if word in path), "BatchTopKSAE")
            return {"trainer": trainer | {"dict_class": kind}, "buffer": {"ctx_len": 128}}
    layer = re.findall(r"_L(\d+)_", file)[0]  # hook_z of GPT-2
    return {"act_size": 768, "dict_size": 24576, "act_name": f"blocks.{layer}.attn.hook_z"}


def _kind(repository: str, path: str) -> str:
    """The hook of a dictionary in SAELens's own format, by where it lies."""
    found = re.search(r"hook_resid_pre|hook_resid_post|hook_mlp_out", path)
    words = {"-mlp": "hook_mlp_out", "-att": "hook_attn_out", "mid": "hook_resid_mid"}
    words |= {"MLP": "hook_mlp_out", "Attn": "hook_attn_out", "Mid": "hook_resid_mid"}
    return (
        found[0]
        if found
        else next((h for word, h in words.items() if word in f"{repository}/{path}"), "hook_resid_post")
    )


def _d_sae(path: str) -> int:
    found = re.search(r"hook_resid_pre_(\d+)$", path)
    return int(found[1]) if found else 24576


def _shapes(repository: str, name: str) -> dict[str, list[int]]:
    """Shapes in a weights file of Gemma Scope 2."""
    width, heads = next(sizes for size, sizes in _WIDTHS.items() if f"-{size}-" in repository)
    label = re.findall(r"width_(\d+)[km]", name)[0]
    d_sae = {"1": 1 << 20}.get(label, int(label) * 1000 // 1024 * 1024)
    d_in = heads if "attn" in name else width
    return {"w_enc": [d_in, d_sae], "w_dec": [d_sae, d_in]}


def totals(walked: list[Walked]) -> Counter[str]:
    """Sums over all releases."""
    sums: Counter[str] = Counter()
    for one in walked:
        sums.update(typed=one.typed, choice=one.choice, refused=one.refused)
    return sums


def main() -> None:
    """Print a row a release and the sums."""
    walked = walk()
    for one in walked:
        reason = f"  {next(iter(one.reasons))[:160]}" if one.reasons else ""
        print(f"{one.release:52} {one.typed:5} as typed {one.choice:5} by a choice {one.refused:4} refused{reason}")
    sums = totals(walked)
    print(f"{'all':52} " + " ".join(f"{name} {count}" for name, count in sums.items()))
    share = (sums["typed"] + sums["choice"]) / sums.total()
    print(f"{len(walked)} releases, {sums.total():,} dictionaries: {100 * share:.2f} % can be ingested")


if __name__ == "__main__":
    main()
