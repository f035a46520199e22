"""Which process runs which test file: every test once, files whole, those on Ray by two processes."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.scheduling import LONG, NUM_RAYS, ByFile, shares_ray

NUM_TESTS = 3


class Node:
    """One of several processes, as the scheduler sees it."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.shutting_down = False
        self.waiting: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.waiting += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    def can_run(self) -> bool:
        """A process runs a test once it knows the next one, or that there is none."""
        return len(self.waiting) > (0 if self.shutting_down else 1)


def scheduler(root: Path, num_nodes: int, on_ray: int, others: int) -> tuple[ByFile, list[str]]:
    tests = []
    for number in range(on_ray + others):
        argument = "ray_address" if number < on_ray else ""
        lines = [f"def test_{test}({argument}): pass\n" for test in range(NUM_TESTS)]
        (root / f"test_{number}.py").write_text("".join(lines))
        tests += [f"test_{number}.py::test_{test}" for test in range(NUM_TESTS)]
    config = SimpleNamespace(getvalue=lambda name: ["popen"] * num_nodes, option=SimpleNamespace(), rootpath=root)
    return ByFile(config, SimpleNamespace(loadscopesched=lambda *text: None)), tests


def joined(scheduling: ByFile, node: Node, tests: list[str]) -> Node:
    scheduling.add_node(node)
    scheduling.add_node_collection(node, tests)
    return node


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("num_nodes", "on_ray", "others"), [(3, 5, 12), (3, 8, 1), (4, 1, 9), (2, 4, 4), (3, 6, 0)])
def test_every_test_is_run_once_and_two_processes_have_a_ray(tmp_path, num_nodes, on_ray, others, seed):
    """In any order of events; a process that dies in the middle has its tests run by the one in its place."""
    rng = random.Random(seed)
    scheduling, tests = scheduler(tmp_path, num_nodes, on_ray, others)
    nodes = [joined(scheduling, Node(number), tests) for number in range(num_nodes)]
    scheduling.schedule()
    died, dies_at = None, rng.randrange(len(tests))
    ran: dict[str, list[Node]] = defaultdict(list)
    while scheduling.has_pending:
        if scheduling.tests_finished:
            for node in nodes:
                node.shutdown()
        node = rng.choice([one for one in nodes if one.can_run()])
        index = node.waiting.pop(0)
        ran[tests[index]].append(node)
        if died is None and sum(map(len, ran.values())) > dies_at:
            died = node
            nodes.remove(node)
            assert scheduling.remove_node(node) == tests[index]
            if scheduling.has_pending:  # else all is done, by what xdist knows
                nodes.append(joined(scheduling, Node(num_nodes), tests))
                scheduling.schedule()
        else:
            scheduling.mark_test_complete(node, index)
    assert set(ran) == set(tests)
    assert all(len(by) == 1 or by[0] is died for by in ran.values())
    files: dict[str, set[Node]] = defaultdict(set)
    for test, by in ran.items():
        files[test.partition("::")[0]] |= set(by) - {died}
    assert all(len(by) <= 1 + (died is not None) for by in files.values())
    have_ray = set().union(*(by for file, by in files.items() if shares_ray(tmp_path / file)))
    assert len(have_ray) <= NUM_RAYS + 1
    assert len(have_ray - {nodes[-1]}) <= NUM_RAYS


def test_long_files_are_there():
    assert [name for name in LONG if not (Path(__file__).parent / name).is_file()] == []
