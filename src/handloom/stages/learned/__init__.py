"""Stages to be declared in `[stages.NAME]`: `class = "handloom.stages.learned:Tower"`, `TextTower`, `Caption`, ..."""

from handloom.stages.learned.captions import Caption
from handloom.stages.learned.rule_captions import RuleCaption
from handloom.stages.learned.texts import TextTower
from handloom.stages.learned.towers import Tower

__all__ = ["Caption", "RuleCaption", "TextTower", "Tower"]
