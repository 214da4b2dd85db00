"""Prompts as a model reads them: text, the messages of a chat, or token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from atlas.errors import ModelError

Given = str | Sequence[Mapping[str, Any]] | Sequence[int]  # text, the messages of a chat, or token ids


@dataclass(frozen=True)
class Prompt:
    """One prompt."""

    text: str
    tokens: list[int]
    turn: int | None = None  # tokens from the start of a chat's last turn to the end; None: no chat


def prompt_of(tokenizer: Any, given: Given) -> Prompt:
    """A prompt, tokenised: text gets the tokenizer's special tokens, but no second BOS where it begins with one.

    Messages (`[{"role": "user", "content": "…"}]`) go through the tokenizer's chat template; an answer begun by the
    assistant is continued. Raises ModelError where there is no token, or no template.
    """
    if isinstance(given, str):
        return _text(tokenizer, given)
    if hasattr(given, "tolist"):
        given = given.tolist()
    parts: list[Any] = list(given)
    if parts and all(isinstance(part, Mapping) for part in parts):
        return _chat(tokenizer, parts)
    if not parts or not all(isinstance(part, int) for part in parts):
        raise ModelError("a prompt is text, a list of messages with role and content, or a list of token ids")
    return Prompt(tokenizer.decode(parts, clean_up_tokenization_spaces=False), parts)


def _text(tokenizer: Any, text: str) -> Prompt:
    bos = tokenizer.bos_token
    # A chat template's text has all its special tokens already.
    whole = bool(bos) and text.startswith(bos)
    tokens = list(tokenizer(text, add_special_tokens=not whole)["input_ids"])
    if not tokens:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None:
            raise ModelError("an empty prompt needs a tokenizer with a BOS token; give the prompt a word")
        tokens = [start]
    return Prompt(text, tokens)


def _chat(tokenizer: Any, messages: list[Any]) -> Prompt:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("this model's tokenizer has no chat template: give the prompt as text")
    begun = messages[-1].get("role") == "assistant"

    def rendered(part: list[Any], **options: Any) -> str:
        return str(tokenizer.apply_chat_template(part, tokenize=False, **options))

    text = rendered(messages, continue_final_message=begun, add_generation_prompt=not begun)
    tokens = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    before = list(tokenizer(_before(tokenizer, messages, rendered), add_special_tokens=False)["input_ids"])
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, tokens, strict=False)))
    return Prompt(text, tokens, len(tokens) - same)


def _before(tokenizer: Any, messages: list[Any], rendered: Any) -> str:
    """What the template makes of all but the last message."""
    from jinja2.exceptions import TemplateError

    if len(messages) > 1:
        try:
            return str(rendered(messages[:-1]))
        except TemplateError:  # some templates know no form for a system message alone
            pass
    return tokenizer.bos_token or ""
