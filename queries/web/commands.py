"""The command that serves the page."""

from __future__ import annotations

import click

from atlas.cli.options import atlas_option


@click.command()
@atlas_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@click.option("--model", metavar="NAME_OR_FOLDER", help="The model to steer.  [default: the atlas' own]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
def serve(atlas: str | None, host: str, port: int, open_: bool, model: str | None, device: str) -> None:
    """See an atlas in the browser: search, walk lineages, steer and watch the text.

    Prints the page's address, which holds a token: who has it sees the atlas and runs the model. Ctrl-C ends it.

    \b
    feature-atlas serve
    feature-atlas serve -a neo4j://localhost:7687 --port 9000 --open
    """
    from atlas.errors import AtlasError

    try:
        from queries.web.server import serve as run
    except ImportError as error:
        raise AtlasError(f"the page needs {error.name}: pip install 'feature-atlas[web]'") from None
    run(atlas, host, port, open_=open_, model=model, device=device)
