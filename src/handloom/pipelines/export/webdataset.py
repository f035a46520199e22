"""`handloom export webdataset`: every clip a sample of a tar shard."""

from __future__ import annotations

from typing import Any

from handloom.api import Database
from handloom.export.card import Card, CardTally
from handloom.export.webdataset import WebDatasetSummary, export_webdataset
from handloom.pipelines.export.parquet import TITLES, opened
from handloom.store.embodiment import HUMAN

BATCH_ROWS = 4
LAYOUT = """One sample per clip: `KEY.json` (narration, times, quality, sources: one value each), `KEY.COLUMN.npy` for
every array of the table, `KEY.000000.jpg` and so on for the stored frames. `index.json` lists the shards with their
SHA-256. NaN is a value that is not known; a column that was not computed has no file.

```python
import webdataset as wds

dataset = wds.WebDataset("{urls}", shardshuffle=False).decode("rgb8")
for sample in dataset:
    sample["json"]["narration"], sample["hand_keypoints_cam_m.npy"], sample["000000.jpg"]
```"""


def webdataset(
    db: Database, out: str, where: str | None = None, *, embodiment: str = HUMAN, **options: Any
) -> WebDatasetSummary:
    """Write the rows of `clips` that pass `where`, of the newest version, as tar shards.

    Args:
        embodiment: whose clips: `human`, `robot` or `all`.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: `out` is not empty, no row passes, or `where` is no SQL.
    """
    table, source, where = opened(db, "clips", where, embodiment)
    tally = CardTally()
    batches = tally.over(db.batches(where=where, version=table.version, batch_size=BATCH_ROWS))

    def card(urls: str) -> str:
        layout = LAYOUT.format(urls=urls)
        return Card("webdataset", TITLES[embodiment], layout, source, "*.tar", (), ("webdataset",)).text(tally)

    return export_webdataset(batches, out, card=card, metadata=source, **options)
