"""`handloom export webdataset`: a sample in a tar shard for every clip."""

from __future__ import annotations

from typing import Any

from handloom.api import Database
from handloom.export.card import Card, CardTally
from handloom.export.webdataset import WebDatasetSummary, export_webdataset
from handloom.pipelines.export.parquet import TITLES, opened
from handloom.store.embodiment import HUMAN
from handloom.store.stages.row_keys import StageKeys

BATCH_ROWS = 4
LAYOUT = """One sample per clip: `KEY.json` (what has one value: narration, times, quality, ...), `KEY.COLUMN.npy` for
every array of the table, `KEY.000000.jpg` and so on for the stored frames. `index.json` lists the shards with their
SHA-256. NaN is an unknown value; a column that was not computed has no file.

```python
import webdataset as wds

dataset = wds.WebDataset("{urls}", shardshuffle=False).decode("rgb8")
for sample in dataset:
    sample["json"]["narration"], sample["hand_keypoints_cam_m.npy"], sample["000000.jpg"]
```"""


def webdataset(
    db: Database,
    out: str,
    where: str | None = None,
    *,
    embodiment: str = HUMAN,
    stage_keys: StageKeys = None,
    **options: Any,
) -> WebDatasetSummary:
    """Write the rows of `clips` that pass `where`, of the newest version, as tar shards.

    Args:
        embodiment: whose clips: `human`, `robot` or `all`.
        stage_keys: only rows with these keys, by stage; `current`: those of the last run, for all stages.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: `out` is not empty, no row passes, or `where` is no SQL.
    """
    rows = opened(db, "clips", where, embodiment, stage_keys)
    table, source, tally = rows.table, rows.source, CardTally()
    batches = tally.over(db.batches(rows.columns(), rows.where, table.version, BATCH_ROWS))

    def card(urls: str) -> str:
        layout = LAYOUT.format(urls=urls)
        return Card("webdataset", TITLES[embodiment], layout, source, "*.tar", (), ("webdataset",)).text(tally)

    return export_webdataset(batches, out, card=card, metadata=source, **options)
