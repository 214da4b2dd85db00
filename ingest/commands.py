"""Commands that write to an atlas: ingest, label."""

from __future__ import annotations

from pathlib import Path

import click

from atlas.cli.options import LAYERS, THRESHOLD, atlas_option, complete_dictionaries, format_option, ray_option


@click.command("ingest")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@atlas_option
@click.option("--layers", type=LAYERS, help="Only these layers.")
@click.option("--sites", metavar="res,mlp,att", help="Only these sites.")
@click.option("--width", metavar="16k", help="Only dictionaries of this width.")
@click.option("--l0", metavar="small|medium|big|N", help="Of several L0s at one place this one, or the nearest to N.")
@click.option(
    "--checkpoint",
    type=click.IntRange(min=0),
    metavar="STEP",
    help="Of a run's checkpoints this one.  [default: the last]",
)
@click.option("--set", "set_name", metavar="NAME", help="Name of the set in the ids, where two would share one.")
@click.option("--k", type=click.IntRange(min=1), metavar="N", help="Matches kept on each side of a pair.  [default: 5]")
@click.option(
    "--model",
    metavar="NAME_OR_FOLDER",
    help="The model, if the metadata does not say.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where matching runs.")
@click.option("--min-res", type=THRESHOLD, help="Life cycle's threshold on residual scores.  [default: 0.5]")
@click.option("--min-module", type=THRESHOLD, help="The same on mlp and att scores.  [default: 0.25]")
@click.option("--shard", metavar="I/N", help="Match the Ith of N stretches of pairs alone, into a part: -a PART.")
@click.option(
    "--join",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="PART",
    help="Take the matches of these parts, every one of the N; repeatable.",
)
@ray_option("Match on the Ray cluster there (behind the SOURCEs); without an address on one of this machine's own.")
@click.option("--dry-run", is_flag=True, help="Print what it would do: pairs, bytes, estimated time.")
@click.option("--verbose", is_flag=True, help="With --dry-run: each dictionary and pair.")
@format_option
def ingest_command(
    sources: tuple[str, ...],
    atlas: str | None,
    layers: range | None,
    sites: str | None,
    width: str | None,
    l0: str | None,
    checkpoint: int | None,
    set_name: str | None,
    k: int | None,
    model: str | None,
    device: str,
    min_res: float | str | None,
    min_module: float | str | None,
    shard: str | None,
    join: tuple[Path, ...],
    ray: str | None,
    dry_run: bool,
    verbose: bool,
    format_: str,
) -> None:
    """Take dictionaries into an atlas and match them across layers.

    SOURCE is a SAELens release, release/sae_id, a pattern over a release's ids ('release/*l0_small*'), or a folder that
    holds SAELens dictionaries at any depth. What is in the atlas already is kept: an interrupted ingest goes on where
    it was, a repeated one does nothing, a new layer or model adds only its own pairs. Without a SOURCE, what the atlas
    holds is brought to other settings (--k, --min-res, --min-module), or its graph rebuilt.

    \b
    feature-atlas ingest path/to/dictionaries
    feature-atlas ingest gpt2-small-res-jb --layers 0-11 -a gpt2
    feature-atlas ingest gemma-scope-2b-pt-res-canonical gemma-scope-2b-pt-mlp-canonical \\
        gemma-scope-2b-pt-att-canonical --width 16k --dry-run
    feature-atlas ingest gemma-scope-2-1b-pt-res-all gemma-scope-2-1b-pt-att-all --width 16k --l0 small

    On several machines, each command where it likes (docs/scale.md); the whole is the same, whatever N:

    
    feature-atlas ingest path/to/dictionaries --shard 1/2 -a part-1
    feature-atlas ingest path/to/dictionaries --shard 2/2 -a part-2
    feature-atlas ingest path/to/dictionaries --join part-1 --join part-2 -a whole
    """
    from atlas.cli.output import lines, print_rows
    from atlas.cli.progress import Progress
    from ingest.dry_run import plan_rows, summary
    from ingest.job import ingest
    from ingest.sources.selection import Selection

    named = None if sites is None else {site.strip() for site in sites.split(",")}
    selection = Selection(layers, named, width, set_name, model, l0, checkpoint)
    if shard is not None and (join or ray is not None or min_res is not None or min_module is not None):
        raise click.UsageError("--shard makes a part; --join, --ray, --min-res and --min-module belong to the whole")
    if dry_run:
        columns, rows = plan_rows(list(sources), atlas, k=k, selection=selection, shard=shard)
        # For a program always: it wants numbers, and text with units is for people.
        if verbose or format_ != "table":
            print_rows(rows, columns, format_)
        if format_ == "table":
            click.echo(("\n" if verbose else "") + lines(summary(rows, atlas)))
        return
    if shard is not None:
        from ingest.shards.part import ingest_shard
        from ingest.shards.plan import read_shard

        wanted, progress = read_shard(shard), Progress()
        part = ingest_shard(
            sources, atlas, wanted, k=5 if k is None else k, device=device, selection=selection, progress=progress
        )
        click.echo(
            f"{part.part}: shard {part.shard} of {part.of}, {part.dictionaries} dictionaries, {part.pairs_matched} "
            f"pairs matched, {part.pairs_kept} kept, {part.seconds:.1f} s"
        )
        return
    report = ingest(
        list(sources),
        atlas,
        k=k,
        device=device,
        min_res=min_res,
        min_module=min_module,
        join=join,
        ray=ray,
        progress=Progress(),
        **vars(selection),
    )
    # First: an atlas whose rows were written again was not idle, though its graph stays as it was.
    if report.restored:
        click.echo(f"{report.atlas}: rows of {len(report.restored)} dictionaries written again")
    elif not report.published:
        click.echo(f"{report.atlas}: nothing to do, all of it is there ({report.edges:,} edges)")
    if report.published:
        click.echo(
            f"{report.atlas}: {len(report.dictionaries)} dictionaries added, {report.pairs_matched} pairs matched, "
            f"{report.pairs_kept} kept, {report.edges:,} edges, {report.seconds:.1f} s"
        )


@click.command()
@atlas_option
@click.option(
    "--promoted",
    is_flag=True,
    help="Tokens that each direction promotes through the unembedding.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run the model over this text; store what each feature fires on (repeatable).",
)
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="SOURCE",
    help="Labels made elsewhere: a Parquet file, or a file or folder of Neuronpedia's jsonl exports (repeatable).",
)
@click.option("--model", metavar="NAME_OR_FOLDER", help="The model.  [default: the one the dictionaries name]")
@click.option(
    "--tokens",
    default=0,
    metavar="N",
    help="Read only the first N tokens of the text; 0: all.",
    show_default=True,
)
@click.option("--batch", default=8, show_default=True, metavar="N", help="Contexts of 256 tokens in one pass.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where the model runs.")
def label(
    atlas: str | None,
    promoted: bool,
    texts: tuple[Path, ...],
    imports: tuple[str, ...],
    model: str | None,
    tokens: int,
    batch: int,
    device: str,
) -> None:
    """Give features words: tokens they promote, tokens and contexts they fire on, labels made elsewhere.

    \b
    feature-atlas label --text prose.txt
    feature-atlas label --promoted
    feature-atlas label --import neuronpedia/gemma-2-2b/
    """
    from atlas.cli.progress import Progress
    from ingest.labels.job import label_atlas

    if not (promoted or texts or imports):
        raise click.UsageError("say where labels come from: --promoted, --text FILE or --import SOURCE")
    counts = label_atlas(
        atlas,
        promoted=promoted,
        texts=texts,
        imports=imports,
        model=model,
        tokens=tokens,
        batch=batch,
        device=device,
        progress=Progress(),
    )
    for name, count in counts.items():
        click.echo(f"{name}: {count:,} features")


@click.command()
@click.argument("dictionaries", nargs=-1, metavar="[DICTIONARY]...", shell_complete=complete_dictionaries)
@atlas_option
@click.option("--model", metavar="NAME", help="Only this model's, by the first part of their ids.")
@click.option("--layers", type=LAYERS, help="Only these layers.")
@click.option("--sites", metavar="res,mlp,att", help="Only these sites.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where matching runs.")
def remove(
    dictionaries: tuple[str, ...],
    atlas: str | None,
    model: str | None,
    layers: range | None,
    sites: str | None,
    device: str,
) -> None:
    """Take dictionaries out of an atlas: their rows, features, matches and edges.

    What remains is matched across the gap. An interrupted removal goes on with the same command.

    \b
    feature-atlas remove smollm2-135m-instruct/11-att-2k
    feature-atlas remove --layers 8 --sites mlp,att
    """
    from atlas.cli.progress import Progress
    from ingest.remove import remove

    named = None if sites is None else {site.strip() for site in sites.split(",")}
    report = remove(dictionaries, atlas, model=model, layers=layers, sites=named, device=device, progress=Progress())
    click.echo(
        f"{report.atlas}: {len(report.dictionaries)} dictionaries removed, {report.pairs_matched} pairs matched anew, "
        f"{report.edges:,} edges left"
    )
