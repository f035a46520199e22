"""Captions and intents by a vision-language model: of this machine, or behind an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.models.embeddings.lite0.weights import LICENCE
from handloom.models.embeddings.look import MODEL, LookEncoder, look_identity
from handloom.models.vision_language.asking import Asking, planned
from handloom.models.vision_language.prompts import SEGMENTS, find_prompt, with_schema
from handloom.models.vision_language.questions import Answer, AskError, Question
from handloom.schemas.towers import CaptionSettings
from handloom.stages.learned.intents import intent_fields, intent_values, json_text
from handloom.stages.stage import ClipInput, FrameRequest, Stage, StageSettings

VERSION = "1"


class CaptionStageSettings(CaptionSettings, StageSettings):
    """All that can change a caption, and what it may cost."""


class Caption(Stage):
    """The columns `caption`, `caption_json`, `intent`, `intent_s` and `intent_source`.

    Raises:
        ConfigError: the prompt is unknown, the address is none, or the model is not there.
    """

    version = VERSION
    Settings = CaptionStageSettings
    settings: CaptionStageSettings

    def __init__(self, name: str, settings: CaptionStageSettings) -> None:
        super().__init__(name, settings)
        where = f"stages.{name}.settings."
        self._prompt = find_prompt(where, settings.prompt, settings.prompt_text, settings.answer_schema)
        self._plan = planned(settings, where)
        self._intent = _intent_of(settings, where)
        self.columns = self._prompt.columns
        self.frames = FrameRequest(stored=settings.source == "stored", count=settings.frames)

    def fields(self) -> Sequence[pa.Field]:
        told = {"model": self._model_name(), "prompt": self._prompt.id}
        if self._plan is not None:
            told |= {"version": self._plan.files.weights()}
            told |= {} if self._plan.licence is None else {"licence": self._plan.licence}
        found = [pa.field(self._column(name), pa.string(), metadata=told) for name in ("caption", "caption_json")]
        if self._intent == "none":
            return found
        if self._plan is None or self._intent == "look":
            return found + intent_fields(self.settings.prefix, LookEncoder.dim, LICENCE)
        return found + intent_fields(self.settings.prefix, self._plan.dim, self._plan.licence)

    def identity(self) -> Mapping[str, str]:
        prompt = self._prompt
        told = {"prompt": with_schema(prompt.text, prompt.schema), "tells_times": str(prompt.is_timed)}
        told |= {"runs": "at an endpoint"} if self._plan is None else self._plan.identity()
        return told | (dict(look_identity()) if self._intent == "look" else {})

    def load(self) -> None:
        self._look = LookEncoder() if self._intent == "look" else None
        spend = partial(self.count, "requests", 1, self.settings.max_requests)
        where = f"stages.{self.name}.settings."
        self._asking: Asking | None = Asking(self.settings, self._plan, where, spend, self.count)

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any] | ClipError]:
        """Questions of a batch go to an endpoint at the same time; a model of this machine sees one clip at a time."""
        if self._asking is None or not self._asking.is_remote or len(clips) == 1:
            return [self._one(clip) for clip in clips]
        with ThreadPoolExecutor(len(clips)) as threads:
            answers = list(threads.map(self._asked, clips))
        return [self._values(clip, found) for clip, found in zip(clips, answers, strict=True)]

    def close(self) -> None:
        self._asking = self._look = None

    def _one(self, clip: ClipInput) -> Mapping[str, Any] | ClipError:
        return self._values(clip, self._asked(clip))

    def _asked(self, clip: ClipInput) -> Answer | ClipError | None:
        """None: there is nothing to ask."""
        question = self._question(clip)
        if question is None:
            return None
        if self._asking is None:
            raise RuntimeError(f"the stage {self.name} computes before it is loaded")
        try:
            return self._asking(question)
        except AskError as error:
            return ClipError(clip.clip.clip_id, self.name, error.reason, error.problem, error.hint)

    def _question(self, clip: ClipInput) -> Question | None:
        """None where the prompt is about segments, and the clip has none."""
        segments = clip.row.get(SEGMENTS) if SEGMENTS in self._prompt.columns else ()
        frames, times = clip.frames, clip.frame_s
        if frames is None or times is None or len(frames) == 0 or (SEGMENTS in self._prompt.columns and not segments):
            return None
        check = None
        if self._prompt.id == "vlmimic/segments":
            check = partial(_wrong_numbers, len(segments or ()))
        text = self._prompt.filled(clip.row)
        return Question(
            text, list(frames), times.tolist() if self._prompt.is_timed else None, self._prompt.schema, check
        )

    def _values(self, clip: ClipInput, found: Answer | ClipError | None) -> Mapping[str, Any] | ClipError:
        if isinstance(found, ClipError):
            return found
        values: dict[str, Any] = {"caption": None, "caption_json": None}
        if found is not None:
            values = {"caption": caption_of(found), "caption_json": json_of(found)}
        if self._intent != "none":
            states = self._states(clip)
            if states is not None and not np.isfinite(states.astype(np.float16)).all():
                problem = f"{self._model_name()} gave hidden states that are not finite, or too large for float16"
                return ClipError(clip.clip.clip_id, self.name, "model_failed", problem, "try dtype = 'float32'")
            source = f"image embedding ({MODEL})" if self._intent == "look" else f"vlm:{self._model_name()}"
            values |= intent_values(states, clip.frame_s, source)
        return {self._column(name): value for name, value in values.items()}

    def _states(self, clip: ClipInput) -> NDArray[np.float32] | None:
        if clip.frames is None or len(clip.frames) == 0:
            return None
        if self._look is not None:
            return self._look.encode(clip.frames)
        question, local = self._question(clip), None if self._asking is None else self._asking.local
        return None if question is None or local is None else local.intent(question)

    def _column(self, name: str) -> str:
        return self.settings.prefix + name

    def _model_name(self) -> str:
        """Without folders of one machine."""
        plan = self._plan
        return self.settings.model if plan is None or plan.files.revision else Path(self.settings.model).name


def caption_of(answer: Answer) -> str | None:
    """The words of an answer: free text; of JSON its member `caption`, `task`, or the texts of its segments."""
    value = answer.value
    if value is None:
        return answer.text
    if not isinstance(value, dict):
        return value if isinstance(value, str) else None
    for name in ("caption", "task"):
        if isinstance(value.get(name), str) and value[name]:
            return value[name]
    parts = value.get("segments")
    texts = [one["text"] for one in parts if isinstance(one, dict) and one.get("text")] if parts else []
    return "; ".join(map(str, texts)) or None


def json_of(answer: Answer) -> str | None:
    """The answer's JSON in one spelling; None for free text."""
    return None if answer.value is None else json_text(answer.value)


def _wrong_numbers(num: int, value: Any) -> str | None:
    found = [one["number"] for one in value["segments"]]
    if found == list(range(1, num + 1)):
        return None
    return f"its segments are numbered {found[:20]}, expected each of 1 to {num} once, in order"


def _intent_of(settings: CaptionSettings, where: str) -> str:
    if settings.intent == "model" and settings.base_url:
        problem = f"{where}intent is 'model', but an endpoint gives no hidden states"
        raise ConfigError(problem, "take 'look' or 'none', or run the model here: leave base_url out")
    return ("look" if settings.base_url else "model") if settings.intent == "auto" else settings.intent
