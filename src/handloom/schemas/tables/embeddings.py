"""What each embedding column is: model, version and width. The encoders themselves live in `handloom.models`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EmbeddingSpec:
    """One embedding column `embedding_{name}`: (dim,) float32, unit norm."""

    name: str
    model: str
    version: str
    dim: int

    @property
    def column(self) -> str:
        return f"embedding_{self.name}"

    def metadata(self) -> dict[str, str]:
        return {"encoder": self.name, "model": self.model, "version": self.version, "dim": str(self.dim)}


EMBEDDINGS: dict[str, EmbeddingSpec] = {
    "motion": EmbeddingSpec("motion", "hof-mbh-ftp", "1", 608),
    "appearance": EmbeddingSpec("appearance", "gist-hog-hsv", "1", 720),
}
