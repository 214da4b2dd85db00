"""The command advise."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from atlas.cli.options import THRESHOLD, atlas_option, format_option
from queries.steer.commands import announced_model, device_option, generation_options, model_option


@click.command()
@click.argument("feature")
@atlas_option
@click.option("--words", help="The theme's words: war,army,soldier* or a file.  [default: what the feature fires on]")
@click.option("--strength", default="36%", show_default=True, help="Total dose: of each layer's median norm, or 40.")
@click.option("--samples", type=click.IntRange(min=1), default=4, show_default=True, help="Texts of four prompts each.")
@click.option("--min-res", type=THRESHOLD, default=0.5, show_default=True, help="Where the lineage ends.")
@generation_options(tokens=24, temperature=1.27, top_p=0.7)
@model_option
@device_option
@click.option("--dry-run", is_flag=True, help="Say what it would do and how long it would take.")
@format_option
def advise(
    feature: str,
    atlas: str | None,
    words: str | None,
    strength: str,
    samples: int,
    min_res: Any,
    generation: dict[str, Any],
    model: str | None,
    device: str,
    dry_run: bool,
    format_: str,
) -> None:
    """The layers of a FEATURE's lineage, ranked by measured effect a nat of fluency: which one, and how strong.

    Each layer's feature alone, and all together, are given the same total dose. output_score says by how many nats
    adding it raises the theme's words as next tokens, output_random what other features do; norm and largest are
    lengths to choose a strength by: of the stream, and of what the feature writes at its largest activation. The page
    knows them afterwards, and warns where a plan does more than was tried here.

    \b
    feature-atlas advise smollm2-135m-instruct/10-res-2k/1342 --min-res floor
    feature-atlas advise smollm2-135m-instruct/10-res-2k/1342 --words "film*,movie*,actor*" --dry-run
    """
    from atlas.atlas import open_atlas
    from atlas.cli.output import print_kept
    from atlas.cli.progress import Progress
    from queries.advice.advice import COLUMNS, advice, advice_design, words_of
    from queries.advice.advised import keep_advice
    from queries.steer.score import read_words
    from queries.sweep.running import Sweep

    with open_atlas(atlas) as opened, TemporaryDirectory() as folder:
        theme = tuple(read_words(words)) if words else words_of(opened, feature)
        chosen = generation | ({"model": model} if model else {})
        design = advice_design(opened, feature, theme, strength=strength, samples=samples, min_res=min_res, **chosen)
        loaded, tokenizer = announced_model(design.model, device)
        made = Sweep(opened, loaded, tokenizer, design)
        estimate = made.estimate(Path(folder), report=False)
        click.echo(f"words: {', '.join(theme)}\n{estimate}", err=True)
        if not dry_run:
            rows = advice(made, Path(folder), Progress())
            about = f"{strength}, {samples} samples"
            print_kept(rows, COLUMNS, format_, lambda: keep_advice(opened, opened.full_id(feature), rows, about))
