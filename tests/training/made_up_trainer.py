"""A trainer on a small tree."""

from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.training.trainer import Trainer
from conftest import small_recipe, small_task


def trainer(arm, seed=0, recipe=None, guided=True):
    task, recipe = small_task(), recipe or small_recipe()
    guide = task.network("guide", 5).eval() if guided else None
    arm = ARMS[arm] if isinstance(arm, str) else arm
    proxy = task.network("guide", seed) if arm.scoring.scorer == "proxy" else None
    networks = Networks(task.network("learner", seed), guide, proxy)
    return Trainer(task.source("cpu"), networks, recipe, arm, Streams(seed))
