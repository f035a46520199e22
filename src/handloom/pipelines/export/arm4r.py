"""`handloom export arm4r`: tracks and images as ARM4R's own loader reads them."""

from __future__ import annotations

from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.export.arm4r.clips import COLUMNS, LEFT_OUT, Arm4rSummary, TextEncoder, export_arm4r
from handloom.export.card import Card, CardTally, tallied
from handloom.pipelines.export.parquet import opened
from handloom.schemas.tables.later_grids import GRID_INDEX, GRID_SHAPES
from handloom.store.embodiment import ALL, HUMAN, ROBOT
from handloom.store.stages.row_keys import StageKeys

BATCH_ROWS = 4
TITLES = {
    HUMAN: "Point tracks of human clips",
    ROBOT: "Point tracks of robots' clips",
    ALL: "Point tracks of clips of people and of robots",
}
LAYOUT = """ARM4R's layout for pre-training on clips:

- `epic_tasks_final/common_task/000000/points.zarr`: (T, 1296, 3) float32, `u` and `v` in pixels of an image of
  912 x 512, `z` in metres, each in that frame's own camera; a grid of 36 x 36 points of the first frame, row by row.
- `points_mask.zarr` (T, 1296): 1 where all three numbers are known; `points_vis.zarr`: 1 where the point was seen.
  ARM4R has neither, and its loader reads neither.
- `images.json`: paths of the T images in `frames/`. They begin with a folder: rewrite it if that moves. ARM4R's
  loader puts noise in place of an image that it does not find, without a message.
- A clip whose first grid leaves the image is there several times: whole, with the first grid, and once for each later
  grid that lasts, cut to its frames (`first_frame` in `epic_clips.json`; `grid_frame`: the frame of the part in which
  its points are a grid). Their images are the same files.
- `epic_clips.json`: what is done in each clip, and which clip of the table it is.
- `index.json`: the clips that were left out, by reason."""


def arm4r(
    db: Database,
    out: str,
    where: str | None = None,
    *,
    embodiment: str = HUMAN,
    stage_keys: StageKeys = None,
    text_encoder: str = "",
    unknown: str = "nan",
    **options: Any,
) -> Arm4rSummary:
    """Write the rows of `clips` that pass `where`, of the newest version, in ARM4R's layout.

    Args:
        embodiment: whose clips: `human`, `robot` or `all`.
        stage_keys: only rows with these keys, by stage; `current`: those of the last run, for the columns read.
        text_encoder: OpenCLIP ViT-B-32's text tower for instruction.zarr: a hub id or a folder; empty: none.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: `out` is not empty, no clip can be exported, the encoder is not available, or `where` is no SQL.
    """
    table, source, where = opened(db, "clips", where, embodiment, stage_keys, (*COLUMNS, *GRID_SHAPES))
    missing = sorted(set(COLUMNS) - set(table.schema.names))
    if missing:
        raise ConfigError(f"the table has no {', '.join(missing)}: it is older", "process its clips again")
    encode = _encoder(text_encoder) if text_encoder else None
    tally = CardTally()
    more = [name for name in (*GRID_INDEX, *GRID_SHAPES, "world_unit_m") if name in table.schema.names]
    wanted = dict.fromkeys([*COLUMNS, *more, *tallied(table.schema, source)])
    batches = db.batches(list(wanted), where, table.version, BATCH_ROWS)

    def card(summary: Arm4rSummary) -> str:
        limits = _limits(summary, text_encoder)
        return Card("arm4r", TITLES[embodiment], LAYOUT, source, None, limits, ("arm4r",)).text(tally)

    metadata = {**source, "text_encoder": text_encoder or None}
    return export_arm4r(
        batches, out, card=card, taken=tally.add, unknown=unknown, text_encoder=encode, metadata=metadata, **options
    )


def _encoder(model: str) -> TextEncoder:
    from handloom.models.hub.encoders import load_text_encoder

    encoder = load_text_encoder(model)
    return lambda text: encoder.encode([text])[0].detach().cpu().numpy()


def _limits(summary: Arm4rSummary, text_encoder: str) -> list[str]:
    share = f"{summary.share_unknown:.1%} of the numbers in points.zarr are unknown"
    known = {
        "nan": f"{share}: they are NaN, and a loss without a mask becomes NaN.",
        "hold": f"{share}: the last known value stands there (`--unknown hold`); points_mask.zarr says where.",
        "drop-clip": "Clips with a value that is not known were left out.",
    }
    found = [known[summary.unknown]]
    if text_encoder:
        found.append(f"instruction.zarr is from {text_encoder}.")
    else:
        found.append(
            "There is no instruction.zarr: compute it from epic_clips.json with OpenCLIP ViT-B-32 (laion2b_s34b_b79k), "
            "not normalised, as ARM4R's own generate_instruction_zarr.py does."
        )
    for reason, ids in sorted(summary.left_out.items()):
        found.append(f"{len(ids)} clips were left out: {LEFT_OUT[reason]}.")
    rates = ", ".join(f"{hz:g} Hz ({count} clips)" for hz, count in sorted(summary.rates.items()))
    found.append(
        f"Steps are as far apart as the table's frames: {rates}. ARM4R's are 1/20 s (EPIC-KITCHENS-55) and 1/16.7 s."
    )
    found.append(
        "Tracks include the camera's motion, as the authors' do. u and v are scaled each for itself: 4:3 images are "
        "widened. They are where the image shows a point, with the lens's distortion, as a tracker sees it."
    )
    return found
