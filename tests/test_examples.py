"""Every example in the docstring of a public function, run as it stands on an atlas of the bundled dictionaries."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import queries
from atlas import Atlas, open_atlas
from atlas.cli.main import _run
from hooked.capture import captured
from hooked.hookpoints import write_point
from hooked.load import load_model

BUNDLE = Path(__file__).parent.parent / "ingest" / "bundle" / "smollm2-135m"
FEATURE = "smollm2-135m-instruct/9-res-2k/2018"
PLAN = queries.SteeringPlan
# What a reader knows besides what an example makes: the public names, an atlas, a model and a plan.
PUBLIC = {name: getattr(queries, name) for name in queries.__all__} | {
    "captured": captured,
    "load_model": load_model,
    "open_atlas": open_atlas,
    "write_point": write_point,
}
FUNCTIONS: list[Callable[..., Any]] = [
    *(value for name, value in PUBLIC.items() if inspect.isfunction(value) and name != "write_point"),
    *(Atlas.query, Atlas.answer, Atlas.locate, Atlas.rows, Atlas.directions, Atlas.contexts),
    *(PLAN.from_features, PLAN.from_lineage, PLAN.from_query, PLAN.save, PLAN.load),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    assert _run(["ingest", str(BUNDLE), "-a", str(folder / "my-atlas")]) == 0
    (folder / "text.txt").write_text("".join((BUNDLE / "text.txt").read_text().splitlines(keepends=True)[:9]))
    words = ["--import", str(BUNDLE / "labels.parquet"), "--text", str(folder / "text.txt")]
    assert _run(["label", *words, "-a", str(folder / "my-atlas")]) == 0
    return folder


@pytest.fixture(scope="module")
def known(folder: Path) -> Iterator[dict[str, Any]]:
    model, tokenizer = load_model("smollm2-135m-instruct", device="cpu")
    with open_atlas(folder / "my-atlas") as atlas:
        plan = PLAN.from_features(atlas, {FEATURE: "30%"})
        yield PUBLIC | {"atlas": atlas, "model": model, "tokenizer": tokenizer, "plan": plan}


def test_every_public_function_is_here() -> None:
    names = {function.__qualname__ for function in FUNCTIONS}
    assert names >= {"ask", "generate", "lineage", "search", "show", "steered", "theme_score", "open_atlas", "captured"}


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: str(function.__qualname__))
def test_the_example_runs(
    function: Callable[..., Any], known: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    text = inspect.getdoc(function) or ""
    _, _, example = text.partition("\nExample:\n")
    code = textwrap.dedent(example)
    assert 1 <= len(code.splitlines()) <= 4, f"{function.__qualname__} has no example of a few lines"
    exec(compile(code, function.__qualname__, "exec"), dict(known))
    assert function.__name__ in code
