"""The settings of learned networks: which one, and how a clip's frames, or its words, reach it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from handloom.schemas.settings import Frozen


class TowerSettings(Frozen):
    """What can change the embedding, but for the weights' bytes: these count by their digest."""

    model: str = Field(min_length=1)
    """A Hugging Face id, a folder that `save_pretrained` wrote, or an s3:// URI of one."""
    revision: str = ""
    """Branch, tag or commit of a Hugging Face model; empty: the main branch as this machine's cache has it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network runs. Results are not equal to the last bit."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers that the network computes with; the embedding is float32."""
    frames: int = Field(0, ge=0, le=1024)
    """Frames of a clip that the network sees, evenly spread; 0: 8 for image networks, the model's own number for video
    networks."""
    image_size: int = Field(0, ge=0, le=4096)
    """Side of the square that frames are resized to; 0: the model's own."""
    fit: Literal["model", "whole"] = "model"
    """`model`: as the model's own preprocessing says; DINOv2, CLIP, V-JEPA 2 and VideoMAE cut the middle out of a wide
    image. `whole`: the image is squashed to the square, so that hands at the sides are seen."""
    licence: str = Field("", exclude=True)
    """Licence of the weights, where the model's README.md does not name it, or names a wrong one. Changes no key."""


class TextTowerSettings(Frozen):
    """What can change the embedding, but for the weights' bytes: these count by their digest."""

    model: str = Field(min_length=1)
    """A Hugging Face id, a folder that `save_pretrained` or sentence-transformers wrote, or an s3:// URI of one."""
    revision: str = ""
    """Branch, tag or commit of a Hugging Face model; empty: the main branch as this machine's cache has it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network runs. Results are not equal to the last bit."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers that the network computes with; the embedding is float32."""
    prefix: str = ""
    """Put before every text, as some networks were trained (E5: `query: `)."""
    licence: str = Field("", exclude=True)
    """Licence of the weights, where the model's README.md does not name it, or names a wrong one. Changes no key."""


class AskSettings(Frozen):
    """Of a vision-language model that is asked: which one, where it runs, what it may cost.

    Those that are excluded change the cost, or where the same model runs: they are in no key.
    """

    model: str = Field(min_length=1)
    """Without `base_url` a Hugging Face id, a folder that `save_pretrained` wrote, or an s3:// URI of one; with it, the
    model's name at that endpoint."""
    max_tokens: int = Field(512, ge=1, le=32768)
    """Of one answer. One that is cut there is not valid."""
    tries: int = Field(3, ge=1, le=10)
    """Answers to one question that may be invalid before it is given up; each time the model is told why."""

    revision: str = ""
    """Branch, tag or commit of a Hugging Face model; empty: the main branch as this machine's cache has it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where a model without `base_url` runs."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers that it computes with."""
    max_pixels: int = Field(0, ge=0)
    """Pixels of a frame that it sees at most; 0: as its own files say."""
    licence: str = Field("", exclude=True)
    """Licence of the weights, where the model's README.md does not name it."""

    base_url: str = Field("", exclude=True)
    """Of an endpoint that speaks OpenAI's chat completions, such as `http://localhost:8000/v1`."""
    key_variable: str = Field("", exclude=True, pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """Name of the environment variable that holds the key, on every node; empty: no key is sent."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Of the endpoint's answers; a model without `base_url` always gives the likeliest words."""
    answer_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the endpoint is asked for JSON; every answer is checked, however it was asked for."""
    request: dict[str, Any] = Field({})
    """More fields of each request, or other values of those that it has: `{seed = 1}`."""
    jpeg_quality: int = Field(90, ge=1, le=100)
    """Of the frames that the endpoint gets."""
    timeout_s: float = Field(60.0, gt=0, exclude=True)
    """Of one request."""
    clip_timeout_s: float = Field(100.0, gt=0, exclude=True)
    """Of all requests of a question, with the waits between them; below `resources.stage_s`."""
    max_requests_clip: int = Field(6, ge=1, exclude=True)
    """Requests for one question, repeated ones among them."""
    max_requests: int = Field(10_000, ge=1, exclude=True)
    """Requests of one run, by all of its workers."""


class CaptionSettings(AskSettings):
    """Of captions by a vision-language model: what it is asked, about which frames, and what is kept of it."""

    prompt: str = "robomirror/egocentric"
    """Id of the question: of one that handloom knows, or of `prompt_text`."""
    prompt_text: str = ""
    """A question of your own. `{narration}`, `{verb}`, `{noun}` and `{segments}` stand for the row's values."""
    answer_schema: dict[str, Any] = Field({})
    """JSON schema of the answers to `prompt_text`; empty: they are free text."""
    frames: int = Field(8, ge=1, le=256)
    """Frames of a clip that the model sees, evenly spread; all of them, where the clip has fewer."""
    source: Literal["stored", "video"] = "stored"
    """`stored`: the frames of `frame_jpeg`, 256 px high by default. `video`: of the video, at the working size."""
    intent: Literal["auto", "model", "look", "none"] = "auto"
    """`model`: last hidden states of a model that runs here. `look`: image embeddings. `auto`: the first one that can
    be had."""
    prefix: str = Field("", pattern=r"^([a-z][a-z0-9_]{0,39})?$")
    """Before the columns' names, for a second stage of this class."""
