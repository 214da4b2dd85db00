"""Shared by all tests: quiet libraries, few threads, planted dictionaries."""

from __future__ import annotations

import os

# Set before torch, faiss and tokenizers are imported: tests run beside each other on few cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers with as many threads as there are cores each wait for one another more than they work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
