"""Columns of an intent: what is seen, step by step through the clip, as vectors of a model, and which model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def intent_fields(prefix: str, dim: int, licence: str | None) -> list[pa.Field]:
    """`intent`: (L, dim) float16; `intent_s`: (L,) seconds of the video's clock; `intent_source`: whose vectors.

    licence: of the model's weights; None: unknown.
    """
    told = None if licence is None else {"licence": licence}
    return [
        pa.field(f"{prefix}intent", pa.list_(pa.list_(pa.float16(), dim)), metadata=told),
        pa.field(f"{prefix}intent_s", pa.list_(pa.float64())),
        pa.field(f"{prefix}intent_source", pa.string()),
    ]


def intent_values(
    states: NDArray[np.floating[Any]] | None, state_s: NDArray[np.float64] | None, source: str
) -> dict[str, Any]:
    """Values of the columns, without their prefix; null where there are no vectors."""
    if states is None:
        return {"intent": None, "intent_s": None, "intent_source": None}
    return {"intent": states.astype(np.float16), "intent_s": state_s, "intent_source": source}


def json_text(value: Any) -> str:
    """JSON in one spelling."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
