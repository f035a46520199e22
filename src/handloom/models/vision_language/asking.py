"""A vision-language model that settings name, ready to be asked: of this machine, or behind an endpoint."""

from __future__ import annotations

import os
from functools import partial

from handloom.errors import ConfigError
from handloom.models.vision_language.endpoint import Access, Count, Endpoint, Spend, check_base_url
from handloom.models.vision_language.local import LocalModel
from handloom.models.vision_language.plan import LocalPlan, plan_local
from handloom.models.vision_language.questions import Answer, Question, ask
from handloom.schemas.towers import AskSettings
from handloom.video.stored_frames import encode_jpeg


def planned(settings: AskSettings, where: str) -> LocalPlan | None:
    """What the model of this machine will be; None for one behind an endpoint. Nothing is loaded.

    where: what comes before the settings' names in errors.

    Raises:
        ConfigError: the model is not there, the address is none, or a key is given without an address.
    """
    if settings.base_url:
        check_base_url(f"{where}base_url", settings.base_url)
        return None
    if settings.key_variable:
        raise ConfigError(f"{where}key_variable is given without base_url", "give base_url, too, or neither")
    return plan_local(settings, where)


class Asking:
    """The model of some settings. local: it, if it runs here; one question after another then. An endpoint may be asked
    by several threads."""

    def __init__(self, settings: AskSettings, plan: LocalPlan | None, where: str, spend: Spend, count: Count) -> None:
        """plan: of `planned`. spend: whether one more request may be sent. count: of tokens and failed requests.

        Raises:
            ConfigError: the key's environment variable is not set; weights cannot be read.
        """
        self._settings = settings
        self.local = None if plan is None else LocalModel(plan)
        self._endpoint = _endpoint(settings, where, spend, count) if plan is None else None

    @property
    def is_remote(self) -> bool:
        return self._endpoint is not None

    def __call__(self, question: Question) -> Answer:
        """The checked answer. Raises AskError if there is none."""
        model = self.local if self._endpoint is None else self._endpoint.session()
        if model is None:
            raise RuntimeError("a model is asked that is neither here nor behind an endpoint")
        return ask(model, question, self._settings.tries)


def _endpoint(settings: AskSettings, where: str, spend: Spend, count: Count) -> Endpoint:
    access = Access(
        settings.base_url,
        settings.model,
        _key(settings.key_variable, f"{where}key_variable"),
        settings.max_tokens,
        settings.temperature,
        settings.answer_format,
        settings.timeout_s,
        settings.clip_timeout_s,
        settings.max_requests_clip,
        settings.request,
    )
    return Endpoint(access, partial(encode_jpeg, quality=settings.jpeg_quality), spend, count)


def _key(variable: str, setting: str) -> str | None:
    """The key from the environment: it is in no setting, and never stored."""
    if not variable:
        return None
    found = os.environ.get(variable, "").strip()
    if not found or not found.isascii() or not found.isprintable():
        what = "holds what is no key" if found else "is not set, or empty"
        raise ConfigError(
            f"{setting}: the environment variable {variable} {what}", "set it on every node, then run again"
        )
    return found
