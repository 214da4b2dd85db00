"""How fast a text is measured: `evidence edges`' pass beside the model's plain one and the encoders' own products.

`python tests/bench_evidence.py [TOKENS]`, on the bundled dictionaries; the target is 0.8. In processor time, so that
what else the machine does changes little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from atlas import open_atlas
from atlas.cli.progress import Progress
from hooked.capture import run_until
from hooked.load import load_model
from hooked.reading import contexts
from ingest import ingest
from queries.evidence.firing.spool import BATCH, Spool
from queries.evidence.readers import readers_of
from queries.evidence.sampling import draw, runnable, starts

BUNDLE = Path(__file__).parent.parent / "ingest" / "bundle" / "smollm2-135m"


def main(tokens: int) -> None:
    """Print tokens a second of both."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "a"
        ingest([BUNDLE], place)
        with open_atlas(place) as atlas:
            records = runnable(atlas.dictionaries)
            model, tokenizer = load_model(next(iter(records.values())).model_name, device="cpu")
            sample = draw([BUNDLE / "text.txt"], tokenizer, tokens, 0)
            readers = readers_of(atlas, records, model)
            (start, group), *_ = starts(tokenizer, records).items()
            last = model.model.layers[max(d.layer for d in group.values())]
            hidden = torch.randn(BATCH * 255, model.config.hidden_size)
            model(torch.ones(1, 8, dtype=torch.long))
            began = time.process_time()
            with torch.inference_mode():
                for ids, _ in contexts(sample.tokens, start, BATCH):
                    run_until(model, last, input_ids=torch.from_numpy(ids), use_cache=False)
                    for reader in readers.values():
                        reader.encoder(hidden)
            plain = len(sample.tokens) / (time.process_time() - began)
            began = time.process_time()
            Spool(place, sample, records).fill(place, model, {start: group}, Progress(quiet=True))
            passed = len(sample.tokens) / (time.process_time() - began)
    print(
        f"plain pass and encoders {plain:,.0f} tokens a processor second, measured {passed:,.0f}: {passed / plain:.2f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8_000)
