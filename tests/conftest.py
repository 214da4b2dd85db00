"""Shared by all tests: quiet libraries, few threads, planted dictionaries."""

from __future__ import annotations

import os

# Set before torch, faiss and tokenizers are imported: tests run beside each other on few cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
