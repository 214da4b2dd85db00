"""Texts judged by a language model behind any server that speaks the OpenAI protocol."""
