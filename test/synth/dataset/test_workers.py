"""Workers share the tasks so that few of them build each town."""

from __future__ import annotations

from bridgeta_synth.dataset.tasks import Task
from bridgeta_synth.dataset.workers import Backlog
from bridgeta_synth.dataset.world import World
from bridgeta_synth.settings import SynthSettings


def test_a_worker_stays_in_its_town_while_work_is_left() -> None:
    tasks = Task.all(World(SynthSettings(scenes=10, seed=3)))
    boston = ["maps-boston-seaport", "scene-0001", "scene-0005", "scene-0009"]
    assert [task.name for task in tasks[:5]] == [*boston, "maps-singapore-onenorth"]
    backlog = Backlog(tasks)
    taken = [backlog.take(city, [1]) for city in (None, 0, 0, 0, 0, 2, 2, 2)]
    # Four tasks are left in onenorth, but a worker is there already; three are in each of the other two.
    then = ["maps-singapore-hollandvillage", "scene-0003", "scene-0007", "maps-singapore-queenstown"]
    assert [task.name for task in taken if task] == [*boston, *then]
    rest = list(iter(lambda: backlog.take(3, [1]), None))
    assert {task.city for task in rest[:2]} == {3}
    assert sorted([*taken, *rest], key=lambda task: task.name) == sorted(tasks, key=lambda task: task.name)
