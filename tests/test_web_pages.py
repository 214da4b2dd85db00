"""What the page's addresses show, asked over a real socket as a browser without scripts asks; and its streams."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from neo4j_for_tests import Server, emptied
from served import PROMPT, SEED, Served, events, served, tiny_atlas, tiny_folder
from starlette.testclient import TestClient

from atlas.atlas import Atlas, open_atlas
from atlas.graph.copying import copy_atlas
from hooked.load import load_model
from queries import SteeringPlan, generate
from queries.lineage.walk import lineage
from queries.web.app import application
from queries.web.engine import MAX_TOKENS, Engine
from queries.web.site import Site
from queries.web.steering import run_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    tiny_atlas(folder)
    tiny_folder(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Served]:
    with served(folder / "atlas <b>", folder / "model") as page:
        yield page


@pytest.fixture
def client(page: Served) -> Iterator[httpx.Client]:
    with closing(page.client()) as client:
        yield client


class Markup(HTMLParser):
    """Links, forms and elements of a page, and everything in it that could act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.active: list[str] = []
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.names.append(tag)
        self.active += [f"{tag} {name}" for name in values if name.startswith("on") or name in ("style", "srcdoc")]
        if tag in ("iframe", "object", "embed", "img", "base", "style"):
            self.active.append(tag)
        if tag == "script" and not re.fullmatch(r"/static/\w+\.js", values.get("src", "")):
            self.active.append("script")
        if tag == "a":
            self.links.append(values["href"])


PAGES = [
    "/",
    "/search?q=film",
    "/search?q=alert&site=res&layer=1&lifecycle=persists",
    f"/{SEED}",
    f"/{SEED}?near=1",
    f"/lineage?feature={SEED}",
    f"/lineage?feature={SEED}&floor=1&k=2&back=1",
    f"/path?feature={SEED}&feature=tiny-1m/0-res-64/3",
    f"/compare?feature={SEED}&feature=tiny-1m/1-res-64/3&floor=1",
    "/compare",
    "/evidence",
    "/cypher",
    "/cypher?question=born-here",
    "/steer",
    f"/steer?feature={SEED}&feature=tiny-1m/1-res-64/4&strength=5&prompt=w9",
    f"/steer?lineage={SEED}&min_res=0.3",
]


@pytest.mark.slow
@pytest.mark.parametrize("address", PAGES)
def test_pages_hold_nothing_that_acts_and_link_only_to_what_is_there(client: httpx.Client, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    markup = Markup(answer.text)
    assert not markup.active
    assert markup.names.count("h1") == 1 and markup.names.count("main") == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", answer.text)
    for link in {link for link in markup.links if link.startswith("/")}:
        assert client.get(link).status_code == 200, (address, link)
    assert all(link.startswith(("/", "#", "https://www.neuronpedia.org/")) for link in markup.links)


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/no/such", 404, "there is no such page"),
        ("/tiny-1m/2-res-64/9999", 404, "has features 0 to 63"),
        ("/tiny-1m/9-res-64/1", 404, "no dictionary"),
        ("/lineage?feature=nonsense", 404, "nonsense"),
        ("/lineage", 400, "name a feature"),
        (f"/lineage?feature={SEED}&min_res=5", 400, "min_res is a number from -1 to 1"),
        (f"/lineage?feature={SEED}&k=99", 400, "k is a number from 1 to 5"),
        (f"/lineage.exe?feature={SEED}", 400, "is downloaded as one of"),
        ("/search?q=film&layer=x", 400, "layer is a number"),
        ("/search?q=film&site=nowhere", 400, "a site is one of"),
        ("/cypher?question=<b>", 400, "no question is called"),
        ("/path?feature=a", 400, "name both"),
    ],
)
def test_errors_are_a_page_and_one_line(client: httpx.Client, address: str, status: int, words: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status and words in answer.text
    assert not Markup(answer.text).active
    assert words in client.get(address, headers={"accept": "application/json"}).json()["error"]


def test_one_theme_through_the_layers_is_one_result(client: httpx.Client) -> None:
    # Row i of layer L's stream is a noisy copy of row i of layer L−1's, for i < 32: one theme has one feature a layer.
    text = client.get("/search?q=film").text
    themes = [part for part in text.split('<article class="theme">')[1:] if "On their own" not in part]
    found = [set(re.findall(r'href="/(tiny-1m/\d-res-64/\d+)"', theme)) for theme in themes]
    # Labels go by row, every tenth of them about film.
    for row in (0, 10, 20, 30):
        (group,) = [group for group in found if f"tiny-1m/2-res-64/{row}" in group]
        assert group == {f"tiny-1m/{layer}-res-64/{row}" for layer in range(4)}


def test_the_lineage_page_shows_what_the_command_draws(client: httpx.Client, folder: Path) -> None:
    with open_atlas(folder / "atlas <b>") as atlas:
        graph = lineage(atlas, SEED, min_res=0.4, min_module=0.2, k=2)
    text = client.get(f"/lineage?feature={SEED}&min_res=0.4&min_module=0.2&k=2").text
    assert text.count('data-n="') == len(graph.nodes) + len(graph.outside)
    assert text.count("<tr data-e=") == len(graph.edges) + len(graph.outside)
    values = client.get(f"/lineage.json?feature={SEED}&min_res=0.4&min_module=0.2&k=2").json()
    assert values == json.loads(json.dumps(graph.to_dict()))
    # A click walks on with the same thresholds.
    (link, *_) = [link for link in Markup(text).links if link.startswith("/lineage?")]
    assert {"min_res": ["0.4"], "min_module": ["0.2"], "k": ["2"]}.items() <= parse_qs(urlsplit(link).query).items()


def test_cypher_answers_in_a_table_and_a_picture(client: httpx.Client) -> None:
    statement = "MATCH (b:Feature)-[:FROM_RES {rank: 0}]->(a:Feature) RETURN b.id AS later, a.id AS earlier "
    statement += "ORDER BY later LIMIT 3"
    text = client.post("/cypher", data={"statement": statement, "limit": "2"}).text
    assert "2 rows; there are more" in text and text.count("<tr>") == 3 and "fa-figure" in text
    text = client.post("/cypher", data={"statement": "RETURN [1, 2] AS l, {a: 1} AS m, null AS n, 0.5 AS f"}).text
    assert "<td>[1, 2]</td>" in text and "<td>0.5</td>" in text
    for parameters in ("[1]", "{", "7"):
        answer = client.post("/cypher", data={"statement": "RETURN 1 AS x", "parameters": parameters})
        assert answer.status_code == 400 and "parameters are a JSON object" in answer.text
    named = client.post("/cypher", data={"statement": "RETURN $x AS x", "parameters": '{"x": "<i>"}'}).text
    assert "<td>&lt;i&gt;</td>" in named


FORM = {"prompt": PROMPT, "feature": SEED, "strength": "4", "tokens": "8", "seed": "0"}


@pytest.mark.slow
def test_a_share_of_the_norm_is_a_length_after_a_run(client: httpx.Client, folder: Path) -> None:
    asked = {"feature": SEED, "strength": "30%"}
    assert "(about" not in client.get("/steer", params=asked).text
    with client.stream("POST", "/steer/stream", data=FORM | asked) as response:
        got = list(events(response))
    (norms,) = (event["values"] for event in got if event["event"] == "norms")
    with open_atlas(folder / "atlas <b>") as atlas:
        plan = SteeringPlan.from_features(atlas, {SEED: "30%"})
        (made,) = generate(folder / "model", None, [PROMPT], plan, max_new_tokens=8)
    assert made.added[0] is not None and norms == [pytest.approx(made.added[0] / 0.3, rel=1e-5)]
    text = client.get("/steer", params=asked).text
    assert f"add 30% (about {made.added[0]:.3g})" in text and f"{made.added[0]:.3g} in all" in text
    assert f'<output data-norms="{norms[0]}">' in text


def expected(folder: Path, **options: Any) -> tuple[str, str]:
    """Unsteered and steered text, made by the library."""
    with open_atlas(folder / "atlas <b>") as atlas:
        plan = SteeringPlan.from_features(atlas, {SEED: 4})
    made = [
        generate(folder / "model", None, [PROMPT], each, max_new_tokens=8, **options)[0].text for each in (None, plan)
    ]
    assert made[0] != made[1]
    return made[0], made[1]


@pytest.mark.slow
def test_a_stream_says_what_the_library_says(client: httpx.Client, folder: Path) -> None:
    plain, turned = expected(folder)
    with client.stream("POST", "/steer/stream", data=FORM | {"control": "1"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        got = list(events(response))
    done: dict[Any, Any] = {event["side"]: event for event in got if event["event"] == "done"}
    assert [*done] == ["unsteered", "steered", "control"]
    assert (done["unsteered"]["text"], done["steered"]["text"]) == (plain, turned)
    (hook,) = done["steered"]["hooks"]
    assert hook == {"module": "model.layers.2", "calls": 8, "positions": 10, "added": hook["added"]}  # 3 + 8 − 1
    assert hook["added"] == pytest.approx(4, rel=1e-5)
    assert done["unsteered"]["hooks"] == []
    pieces = "".join(str(e["text"]) for e in got if e["event"] == "text" and e["side"] == "steered")
    assert pieces.split() == turned.split()
    assert {event["side"] for event in got if event["event"] == "nats"} == {"unsteered", "steered", "control"}
    assert got[-1]["event"] == "end"
    # The address that it ends with gives the same form.
    text = client.get(str(got[-1]["address"])).text
    assert SEED in text and 'value="8"' in text and PROMPT in text


def test_without_scripts_the_same_texts_come_as_a_page(client: httpx.Client, folder: Path) -> None:
    plain, turned = expected(folder, seed=3, temperature=0.9)
    text = client.post("/steer", data=FORM | {"seed": "3", "temperature": "0.9"}).text
    for side, words in (("unsteered", plain), ("steered", turned)):
        assert f'<section data-side="{side}">' in text and words.strip() in text
    assert "model.layers.2" in text and "nats a token" in text and "This session" in text


def test_the_plan_is_the_file_that_the_command_reads(client: httpx.Client, folder: Path, tmp_path: Path) -> None:
    answer = client.post("/steer/plan", data=FORM)
    path = tmp_path / "plan.json"
    path.write_bytes(answer.content)
    with open_atlas(folder / "atlas <b>") as atlas:
        plan = SteeringPlan.load(path, atlas)
        assert plan == SteeringPlan.from_features(atlas, {SEED: 4})
        whole = lineage(atlas, SEED, min_res=0.3)
        of_lineage = SteeringPlan.from_lineage(atlas, whole, "6%")
    again = client.post("/steer/plan", data={"plan": answer.text})
    assert again.json() == answer.json()
    assert client.post("/steer/plan", data={"lineage": SEED, "min_res": "0.3"}).json()["interventions"] == json.loads(
        json.dumps(of_lineage.to_dict()["interventions"])
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature": ""}, "the basket is empty"),
        ({"feature": "tiny-1m/2-res-64/99"}, "has features 0 to 63"),
        ({"strength": "strong"}, "neither a number like 8"),
        ({"mode": "explode"}, "mode is one of"),
        ({"tokens": str(MAX_TOKENS + 1)}, f"tokens is a number from 1 to {MAX_TOKENS}"),
        ({"seed": "-1"}, "seed is a number from 0"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "w5 " * 4000}, "a prompt has at most 8,000 characters"),
        ({"layers": "x"}, "are not of the form"),
        ({"plan": "{}"}, "the plan has plan format None"),
        ({"plan": "[1"}, "the plan is not JSON"),
    ],
)
def test_a_run_that_cannot_be_says_why(client: httpx.Client, changes: dict[str, str], words: str) -> None:
    answer = client.post("/steer/stream", data=FORM | changes)
    assert answer.status_code == 400 and words in answer.json()["error"] and "/tmp" not in answer.json()["error"]
    answer = client.post("/steer", data=FORM | changes)
    assert answer.status_code == 400 and 'role="alert"' in answer.text


def test_a_sentence_fires_where_the_encoder_says(client: httpx.Client, folder: Path) -> None:
    text = client.post("/activations", data={"feature": SEED, "text": PROMPT}).text
    values = [float(value) for value in re.findall(r'<span class="tint-\d+" title="([-\d.]+)">', text)]
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    weights = load_file(folder / "saes" / "blocks.2.hook_resid_post" / "sae_weights.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    with torch.no_grad():
        # Behind the start token, as its dictionary was trained; the third block's output is the fourth hidden state.
        hidden = model(torch.tensor([[1, 5, 9, 13]]), output_hidden_states=True).hidden_states[3][0]
    hidden = hidden[1:]
    before = hidden @ weights["W_enc"][:, 3]
    by_hand = torch.where(before > 0.01, before, torch.zeros(()))
    assert values == pytest.approx(by_hand.tolist(), abs=0.006)
    # Without a feature: the strongest of each dictionary, hers among all of them where she is the strongest.
    text = client.post("/activations", data={"text": PROMPT}).text
    every = torch.where(hidden @ weights["W_enc"] > 0.01, hidden @ weights["W_enc"], torch.zeros(()))
    for row in every.topk(2).indices.tolist():
        assert all(f'href="/tiny-1m/2-res-64/{index}"' in text for index in row)


def test_a_lineage_is_weighed_by_what_happens_at_a_token(client: httpx.Client, folder: Path) -> None:
    """The same graph as the library's, on the page that draws a lineage, its form filled in again."""
    data = {"feature": SEED, "text": PROMPT, "token": "2", "k": "2"}
    text = client.post("/occurrence", data=data).text
    model, tokenizer = load_model(str(folder / "model"), device="cpu")
    with open_atlas(folder / "atlas <b>") as atlas:
        graph = lineage(atlas, SEED, on=PROMPT, token=2, k=2, model=model, tokenizer=tokenizer)
    assert len(graph.edges) > 1 and f"{len(graph.nodes)} features, {len(graph.edges)} edges" in text
    assert all(node.id in text for node in graph.nodes)
    assert f'value="{PROMPT}"' in text and 'name="token" min="0" value="2"' in text and not Markup(text).active
    answer = client.post("/occurrence.attribution", data=data)
    assert answer.headers["content-disposition"].endswith('.attribution.json"')
    assert len(answer.json()["links"]) == len(graph.edges) and answer.json()["metadata"]["prompt"] == PROMPT
    assert client.post("/occurrence.exe", data=data).status_code == 400
    for wrong, words in (({"text": ""}, "write a sentence"), ({"token": "99"}, "token"), ({"k": "0"}, "k is a number")):
        answer = client.post("/occurrence", data=data | wrong)
        assert answer.status_code == 400 and words in answer.text, answer.text
    assert client.post("/occurrence", data=data | {"feature": "tiny-1m/2-res-64/99"}).status_code == 404


def test_a_stream_broken_off_frees_the_model_at_once(client: httpx.Client, page: Served) -> None:
    with client.stream("POST", "/steer/stream", data=FORM | {"tokens": "256"}) as response:
        got = []
        for event in events(response):
            got.append(event)
            if len([e for e in got if e["event"] == "text"]) == 2:
                break
    start = time.monotonic()
    with (
        closing(page.client()) as other,
        other.stream("POST", "/steer/stream", data=FORM | {"tokens": "1"}) as response,
    ):
        after = list(events(response))
    assert [event["event"] for event in after].count("done") == 2
    # 256 tokens of two sides would take many times as long.
    assert time.monotonic() - start < 20


def test_one_runs_one_waits_the_rest_are_told_when_to_come_again(page: Served) -> None:
    long = FORM | {"tokens": "256"}
    opened, release = threading.Barrier(3, timeout=60), threading.Event()
    seen: list[str] = []

    def hold(number: int) -> None:
        with closing(page.client()) as client, client.stream("POST", "/steer/stream", data=long) as response:
            stream = events(response)
            if number == 0:
                seen.append(str(next(stream)["event"]))
            else:
                seen.append(str(next(stream)["text"]))
            opened.wait()
            release.wait(60)

    first = threading.Thread(target=hold, args=(0,))
    first.start()
    while not seen:
        assert first.is_alive()
        time.sleep(0.01)
    second = threading.Thread(target=hold, args=(1,))
    second.start()
    opened.wait()
    try:
        with closing(page.client()) as client:
            for address in ("/steer/stream", "/steer"):
                answer = client.post(address, data=FORM)
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
            for address in ("/activations", "/occurrence"):
                answer = client.post(address, data={"feature": SEED, "text": "w5"})
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
            # Everything else goes on meanwhile.
            assert client.get(f"/lineage?feature={SEED}").status_code == 200
    finally:
        release.set()
        first.join(60)
        second.join(60)
    assert seen[1].startswith("waiting")


CODE = """
import asyncio, sys
sys.modules["torch"] = sys.modules["transformers"] = None  # as if they were not installed
import httpx
from atlas.atlas import open_atlas
from queries.web.app import application
from queries.web.engine import Engine
from queries.web.site import Site

async def main(atlas, *addresses):
    app = application(Site(atlas, Engine("none")), "t", "127.0.0.1", 80)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert (await client.get("/?token=t")).status_code == 303
        for address in addresses:
            print((await client.get(address)).status_code, address)
        for form in ({"statement": "MATCH (f:Feature) RETURN f.id AS id LIMIT 3"},):
            print((await client.post("/cypher", data=form)).status_code, "/cypher")

with open_atlas(sys.argv[1]) as atlas:
    asyncio.run(main(atlas, *sys.argv[2:]))
"""


@pytest.mark.slow
def test_all_but_steering_works_without_torch(folder: Path) -> None:
    atlas = str(folder / "atlas <b>")
    done = subprocess.run([sys.executable, "-c", CODE, atlas, *PAGES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["200"] * (len(PAGES) + 1)


@pytest.mark.slow
def test_pages_of_an_atlas_on_a_server_are_those_of_its_folder(folder: Path, neo4j_lts: Server) -> None:
    """Drawings and rows of tables, address by address; the statement box too."""

    address = emptied(neo4j_lts)
    shown: list[list[tuple[list[str], list[str]]]] = []
    with open_atlas(folder / "atlas <b>") as atlas:
        copy_atlas(atlas, address)
    statement = {"statement": "MATCH (f:Feature) RETURN f.id AS id ORDER BY id LIMIT 3"}
    for place in (folder / "atlas <b>", address):
        with open_atlas(place) as atlas:
            app = application(Site(atlas, Engine("none")), "t", "127.0.0.1", 80)
            client = TestClient(app, base_url="http://127.0.0.1", headers={"accept": "text/html"})
            client.get("/?token=t")
            answers = [*(client.get(page) for page in PAGES), client.post("/cypher", data=statement)]
            assert [answer.status_code for answer in answers] == [200] * len(answers)
            parts = (r'<svg class="fa-figure.*?</svg>', r"<tr>.*?</tr>")
            shown.append([tuple(re.findall(part, answer.text, re.S) for part in parts) for answer in answers])  # type: ignore[misc]
    for page, one, other in zip([*PAGES, "/cypher"], *shown, strict=True):
        assert one[1] == other[1], page
        # A drawing names the state of its atlas, which a copy keeps.
        assert one[0] == other[0], page
    assert sum(len(pictures) for pictures, _ in shown[0]) >= 5 and sum(len(rows) for _, rows in shown[0]) > 50


def asked_here(atlas: Atlas, model: Path) -> tuple[Site, TestClient]:
    """The site of an atlas and a client that has entered, in this process."""
    site = Site(atlas, Engine(str(model)))
    client = TestClient(application(site, "t", "127.0.0.1", 80), base_url="http://127.0.0.1")
    client.get("/?token=t")
    return site, client


def test_a_feature_shows_what_a_text_gave(tmp_path: Path) -> None:
    """Contexts as text, however hostile, each token tinted by its activation; a bar for each bin that holds some."""
    from evidence_atlas import tiny_atlas as measurable
    from evidence_atlas import words
    from flow_graphs import HOSTILE

    from ingest.labels.job import label_atlas

    folder = measurable(tmp_path, layers=(1,), sites=("res",))
    hostile = [text for text in HOSTILE if "\ud800" not in text]
    text = "\n".join(f"{words(20, seed)} {hostile[seed % len(hostile)]}" for seed in range(30))
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    label_atlas(folder, texts=[tmp_path / "t.txt"], promoted=True)
    with open_atlas(folder) as atlas:
        _, client = asked_here(atlas, tmp_path / "model")
        tinted = 0
        for index in range(20):
            (id_,) = (f"{dictionary}/{index}" for dictionary in atlas.dictionaries)
            answer = client.get(f"/{id_}").text
            assert not Markup(answer).active and not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", answer)
            detail = atlas.detail(id_)
            if detail.histogram is None:
                assert "how often how active" not in answer
                continue
            assert answer.count("<title>") == 1 + sum(count > 0 for count in detail.histogram.counts)
            values = [value for context in detail.contexts for _, value in context.tokens if value]
            steps = [round(10 * value / max(values)) for value in values]
            assert re.findall(r'<span class="tint-(\d+)"', answer) == [str(step) for step in steps if step]
            assert "suppresses" in answer and all(f"<li>{escape(word)}</li>" in answer for word in detail.suppresses)
            tinted += len(values)
        assert tinted > 200


def test_evidence_is_what_was_measured(tmp_path: Path) -> None:
    """Means over the best matches of each pair, as the edges themselves have them."""
    from evidence_atlas import tiny_atlas as measurable
    from evidence_atlas import write_text

    from atlas.folder.results import keep
    from queries.advice.advised import keep_advice
    from queries.evidence.controls.impossible import floor_rows
    from queries.evidence.firing.edges import measure_edges
    from queries.evidence.mapping import COLUMNS

    folder = measurable(tmp_path, layers=(0, 1))
    measure_edges(folder, [write_text(tmp_path / "t.txt", 600)])
    with open_atlas(folder) as atlas:
        site, client = asked_here(atlas, tmp_path / "model")
        text = client.get("/evidence").text
        (row,) = atlas.read(
            "MATCH (b:Feature {layer: 1, site: 'res'})-[r:FROM_MLP {rank: 0}]->(a:Feature) "
            "RETURN count(*) AS matches, count(r.cofire) AS known, avg(r.cofire) AS cofire"
        )
        assert row["known"] > 0 and "t.txt" in text and not Markup(text).active
        # What a command of `evidence` printed, with its figure; names that are none of its tables are passed over.
        keep(
            folder, "map", atlas.dictionaries, [dict(zip(COLUMNS, ("a/0", "a/1<b>", "top1", 0.25), strict=True))], "<i>"
        )
        keep(folder, "advice <b>", atlas.dictionaries, [{"feature": "x"}], "")
        site.kept.clear()
        told = client.get("/evidence").text
        assert "a/1&lt;b&gt;" in told and "&lt;i&gt;" in told and "<i>" not in told and "advice" not in told
        assert told.count('<img src="data:image/svg+xml;base64,') == 1
        # What advise measured: 50 % of a median norm of 10 is 5, more than the 3.6 that were tried.
        one, other = next(iter(atlas.dictionaries)).replace("att", "res") + "/1", "1-res-20/2"
        keep_advice(atlas, one, [{"feature": one, "norm": 10.0, "strength": 3.6}], "")
        told = client.get("/steer", params={"feature": one, "strength": "50%"}).text
        assert "add 50% (about 5)" in told and "5 in all; advise tried up to 3.6" in told
        assert '<p class="warning"' in told and "above the 3.6 that advise measured" in told
        assert '<p class="warning"' not in client.get("/steer", params={"feature": one, "strength": "36%"}).text
        # A run may find a norm that advise did not, and is then what the page and the next run both go by.
        asked = {"feature": [one], "strength": ["30%"], "prompt": ["w5"]}
        assert run_of(atlas, asked, {}).warning is None
        site.engine.norms[one.rpartition("/")[0]] = 20.0
        assert "6 in all is above the 3.6" in (run_of(atlas, asked, site.engine.norms).warning or "")
        told = client.get("/steer", params={"feature": one, "strength": "30%"}).text
        assert "add 30% (about 6)" in told and "6 in all is above the 3.6" in told
        site.engine.norms.clear()
        # Files that somebody else wrote: nothing of them is believed, and every page is there.
        others: list[dict[str, Any]] = [
            {"feature": "no/9-res-1/1", "norm": 1.0, "strength": 9.0},
            {"feature": one, "norm": "x"},
            {"feature": [1], "strength": 9.0},
            {"feature": one.replace("/1", "/x"), "norm": 9.0, "strength": None},
        ]
        for wrong in others:
            keep_advice(atlas, "other", [wrong], "")
            assert "advise tried up to 3.6" in client.get("/steer", params={"feature": one, "strength": "50%"}).text
        tables: dict[str, dict[str, Any]] = {
            "floor": {"later": ["x"], "earlier": "y", "site": "mlp", "above": 0.5, "share": None},
            "map": {"target": [], "method": {}, "explained_variance": "x"},
        }
        for name, wrong in tables.items():
            keep(folder, name, atlas.dictionaries, [wrong, {"else": None}], "")
            site.kept.clear()
            assert client.get("/").status_code == client.get("/evidence").status_code == 200
        plans = [
            json.dumps(SteeringPlan.from_features(atlas, features).to_dict())
            for features in ({one: "50%", other: 2.0}, {one: "50%", other: 3.0, "1-mlp-20/3": 1.0})
        ]
        told = client.post("/compare", data={"plan": plans}).text
        rows = re.findall(r"</a></td><td>[^<]*</td><td>([^<]*)</td><td>([^<]*)</td><td>(yes|no)</td>", told)
        assert sorted(rows) == [("add 2", "add 3", "no"), ("add 50%", "add 50%", "yes"), ("–", "add 1", "no")]
        assert "<td>7</td><td>9</td>" in told and not Markup(told).active
        assert client.post("/compare", data={"plan": plans[:1]}).status_code == 400
        assert client.post("/compare", data={"plan": ["{}", plans[0]]}).status_code == 400
        keep(folder, "floor", atlas.dictionaries, floor_rows(atlas), "")
        site.kept.clear()
        above = [row for row in floor_rows(atlas) if row["share"] is not None]
        home = client.get("/").text
        assert above and "no source" in home and f"{above[0]['share']:.2f}" in home
        # The MLP of block 0 behind its bar: 20 features, the shares of both as per cent.
        (mlp,) = [row for row in above if row["site"] == "mlp"]
        assert f">20 · {mlp['above']:.0%} / {mlp['share']:.0%}</text>" in home
    cells = re.findall(
        r'1-mlp-20</td><td class="number">([^<]*)</td>\s*<td class="number">[^<]*</td>'
        r'<td class="number">([^<]*)</td><td class="number">([^<]*)</td>',
        text,
    )
    assert cells == [(str(row["matches"]), str(row["known"]), f"{row['cofire']:.2f}")]
