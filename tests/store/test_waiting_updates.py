"""When staged columns are committed: whole fragments at once, the rest from time to time."""

from handloom.store.stages.staged import ColumnUpdate
from handloom.store.stages.waiting import WaitingUpdates

FRAGMENTS = {"a": 0, "b": 0, "c": 1, "d": 1}


def update(*clip_ids):
    return ColumnUpdate(f"run/{''.join(clip_ids)}.lance", clip_ids, ("x",), 8)


def waiting(**options):
    return WaitingUpdates(FRAGMENTS.get, "abcd", now=0.0, wait_s=60, share=0.1, **options)


def test_complete_fragments_go_at_once_and_others_wait():
    queue = waiting()
    queue.add(update("a"))
    queue.add(update("c"))
    assert queue.due(1.0) == []
    queue.add(update("b"))
    assert queue.due(2.0) == [update("a"), update("b")]
    assert len(queue) == 1
    queue.end("d")  # it was rejected
    assert queue.due(3.0) == [update("c")]
    assert queue.due(3.0) == []


def test_an_update_of_two_fragments_waits_for_both():
    queue = waiting()
    queue.add(update("a", "c"))
    queue.add(update("b"))
    assert queue.due(1.0) == [update("b")]
    queue.add(update("d"))
    assert queue.due(1.0) == [update("a", "c"), update("d")]


def test_the_rest_goes_after_a_while_and_later_where_it_takes_long():
    queue = waiting()
    queue.add(update("a"))
    assert queue.due(59.0) == []
    assert queue.due(60.0) == [update("a")]
    queue.committed(70.0, took_s=10.0)
    queue.add(update("c"))
    assert queue.due(169.0) == []
    assert queue.due(170.0) == [update("c")]
    queue.committed(171.0, took_s=0.1)
    queue.add(update("x"))  # not expected, for example as its row is gone: it waits for nothing
    assert queue.due(172.0) == [update("x")]
    queue.add(update("b", "d", "x"))
    assert queue.due(172.0, everything=True) == [update("b", "d", "x")]


def test_two_updates_of_one_clip_count_once():
    queue = waiting()
    queue.add(update("a"))
    queue.add(update("a"))
    assert queue.due(1.0) == []


def test_a_fragment_that_was_merged_with_others_is_awaited_as_a_whole():
    places = dict(FRAGMENTS)
    queue = WaitingUpdates(places.get, "abcd", now=0.0)
    queue.add(update("a", "b"))
    places.update(dict.fromkeys("abcd", 2))
    assert queue.due(1.0) == []
    queue.add(update("c", "d"))
    assert queue.due(2.0) == [update("a", "b"), update("c", "d")]
