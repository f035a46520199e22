"""What each embedding column is: model, version and width. The encoders themselves live in `handloom.models`."""

import difflib
from dataclasses import dataclass

import pyarrow as pa

PREFIX = "embedding_"


@dataclass(frozen=True)
class EmbeddingSpec:
    """One embedding column `embedding_{name}`: (dim,) float32, unit norm."""

    name: str
    model: str
    version: str
    dim: int

    @property
    def column(self) -> str:
        return f"{PREFIX}{self.name}"

    def metadata(self) -> dict[str, str]:
        return {"encoder": self.name, "model": self.model, "version": self.version, "dim": str(self.dim)}


EMBEDDINGS: dict[str, EmbeddingSpec] = {
    "motion": EmbeddingSpec("motion", "course-hof-mbh", "3", 608),
    "appearance": EmbeddingSpec("appearance", "gist-hog-hsv", "1", 720),
}


def embedding_columns(schema: pa.Schema) -> dict[str, str]:
    """`{NAME: embedding_NAME}` of all embeddings of a table, whichever stage writes them: vectors of float32."""
    return {
        field.name.removeprefix(PREFIX): field.name
        for field in schema
        if field.name.startswith(PREFIX)
        and pa.types.is_fixed_size_list(field.type)
        and field.type.value_type == pa.float32()
    }


def no_embedding(by: str, schema: pa.Schema) -> str:
    """That a table has no embedding of this name, with the nearest, and all that it has."""
    known = embedding_columns(schema)
    near = difflib.get_close_matches(by, known, 3, 0.6)
    nearest = f"; near: {', '.join(near)}" if near else ""
    return f"the table has no embedding {by!r}{nearest}; expected one of: {', '.join(known) or 'none is there'}"
