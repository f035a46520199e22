"""Stages to be declared in `[stages.NAME]`: `class = "handloom.stages.learned:Tower"`, `Caption`, `Body`, ..."""

from handloom.stages.learned.bodies import Body
from handloom.stages.learned.captions import Caption
from handloom.stages.learned.rule_captions import RuleCaption
from handloom.stages.learned.texts import TextTower
from handloom.stages.learned.towers import Tower

__all__ = ["Body", "Caption", "RuleCaption", "TextTower", "Tower"]
