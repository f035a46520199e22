"""Actions that undo each other, as texts name them."""

import pytest

from handloom.retrieval.opposites import actions_in, undoes


@pytest.mark.parametrize(
    ("text", "verbs"),
    [
        ("close the fridge", {"close"}),
        ("turned the tap off", {"turn-off"}),
        ("switch on light", {"switch-on"}),
        ("opening and closing doors", {"open", "close"}),
        ("puts down the knife", {"put-down"}),
        ("putting cups away", {"put"}),
        ("took a cup", {"take"}),
        ("cup on the table", set()),
        ("stir the soup", set()),
    ],
)
def test_actions_that_a_text_names(text, verbs):
    assert actions_in(text) == verbs


def test_what_undoes_what():
    assert undoes(actions_in("close the door"), actions_in("opens the door"))
    assert not undoes(actions_in("close the door"), actions_in("open and close the door"))
    assert not undoes(actions_in("close the door"), actions_in("wash the door"))
    assert undoes(actions_in("take a cup"), actions_in("put the cup down"))
    assert not undoes(actions_in("put the cup back"), actions_in("picks up a cup and places it")), "placing is putting"
