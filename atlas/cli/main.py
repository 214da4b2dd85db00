"""The command line's root. Commands are named as strings and loaded when called: help and a look are instant."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from atlas.cli.streams import drop_output, prepare_streams
from atlas.embedded.engine import without_asyncio
from atlas.errors import AtlasError


class Listed(NamedTuple):
    """A command as the root lists it, known without its module."""

    place: str  # module:name
    about: str  # the first sentence of its own help


COMMANDS = {
    "demo": Listed(
        "atlas.cli.demo:demo",
        "The main job, end to end, on bundled dictionaries: ingest, label, lineage, steer, score.",
    ),
    "init": Listed(
        "atlas.cli.commands:init",
        "Bind DIR to a Neo4j database: the graph lives there, rows and staged matches in DIR.",
    ),
    "ingest": Listed("ingest.commands:ingest_command", "Take dictionaries into an atlas and match them across layers."),
    "remove": Listed(
        "ingest.commands:remove", "Take dictionaries out of an atlas: their rows, features, matches and edges."
    ),
    "info": Listed(
        "atlas.cli.commands:info",
        "What an atlas holds: models, dictionaries, counts, life cycles, pairs, runs, store, disk.",
    ),
    "query": Listed("atlas.cli.commands:query", "Ask the graph in Cypher, read-only and bounded."),
    "lineage": Listed(
        "queries.lineage.commands:lineage",
        "The flow graph of a FEATURE: where it comes from, where it goes, what writes to it on the way.",
    ),
    "ask": Listed("queries.questions.commands:ask", "Ask a named QUESTION; without one, list them all."),
    "label": Listed(
        "ingest.commands:label",
        "Give features words: tokens they promote, tokens and contexts they fire on, labels made elsewhere.",
    ),
    "search": Listed(
        "queries.commands:search", "Features by label, by the tokens they fire on, by the tokens they promote."
    ),
    "show": Listed(
        "queries.commands:show", "Everything that the atlas knows of a FEATURE: scores, words, best matches, contexts."
    ),
    "neighbours": Listed(
        "queries.commands:neighbours",
        "The features nearest to a FEATURE by cosine, exactly: in its own dictionary, in others, in all.",
    ),
    "activate": Listed(
        "queries.occurrence.commands:activate", "Which features fire at each token of TEXT, and how strongly."
    ),
    "serve": Listed(
        "queries.web.commands:serve",
        "See an atlas in the browser: search, walk lineages, steer and watch the text.",
    ),
    "steer": Listed(
        "queries.steer.commands:steer", "Continue PROMPT twice: with the model as it is, and with features turned."
    ),
    "plan": Listed(
        "queries.plans.commands:plan",
        "Saved steering plans: what one does, for other programs, from a control vector.",
    ),
    "policy": Listed(
        "queries.policy.commands:policy",
        "What may not be done to a model with this atlas: policy.toml in its folder (docs/policy.md).",
    ),
    "records": Listed(
        "queries.records.commands:records",
        "What was done to models with this atlas: every steered run, newest first.",
    ),
    "score": Listed(
        "queries.steer.commands:score",
        "Compare plans: theme words a text, share of texts with one, and fluency under the unsteered model.",
    ),
    "evidence": Listed(
        "queries.evidence.commands:evidence",
        "Is it true? Edges and maps of an atlas measured on a text, beside what chance gives.",
    ),
    "sweep": Listed(
        "queries.sweep.commands:sweep",
        "Steering measured: arms × strengths × texts, along the lineage of FEATURE and every way it is compared with.",
    ),
    "advise": Listed(
        "queries.advice.commands:advise",
        "The layers of a FEATURE's lineage, ranked by measured effect a nat of fluency: which one, and how strong.",
    ),
    "report": Listed(
        "queries.report.commands:report",
        "Write up what DIR holds: report.md, report.html that loads nothing, figures, tables, texts, plans, commands.",
    ),
    "copy": Listed(
        "atlas.cli.commands:copy", "Copy an atlas to another store: from a laptop's folder to a server, or back."
    ),
    "export": Listed("atlas.cli.commands:export", "Write the graph as files for other tools to DIR."),
}


class _Lazy(click.Group):
    """A group that imports a command's module when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click's own would import every command to ask for its help.
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        named = [(name, listed.about) for name, listed in COMMANDS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=about) for name, about in named]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own listing would import every command to ask for its help.
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.about) for name, listed in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="feature-atlas", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def root(debug: bool) -> None:
    """Where does this feature come from, where does it go, and what happens if I turn it?

    An atlas is a folder: dictionaries of a model's layers, their matches and the graph that they form. Make one with
    `ingest`, look at it with `info`, `lineage`, `ask`, `search` and `query`, act on the model with `steer`. `demo` does
    all of it on a small trained model.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `feature-atlas`: run a command, turn errors into one line and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Before any command is loaded, since it may import the engine.
    without_asyncio()
    prepare_streams()
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        # Wherever it stands, also behind the command, where click would refuse an option of the root.
        result: Any = root.main([a for a in arguments if a != "--debug"], "feature-atlas", standalone_mode=False)
        # Here, where a full disk is still told in one line; the interpreter's own flush at the end comes too late.
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        # Else the interpreter would report the broken pipe once more when it flushes at its end.
        sys.stderr.close()
        return 0
    except (AtlasError, click.ClickException) as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        return 1
    except OSError as error:
        if (
            debug
            # With a name the error is a file's, not the output's.
            or error.filename is not None
            or error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT)
        ):
            raise
        drop_output()
        click.echo(f"Error: the output could not be written ({error.strerror}); write it where there is room", err=True)
        return 1
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"Error: {type(error).__name__}: {error} (a fault of feature-atlas; --debug shows where)",
            err=True,
        )
        return 1
