"""What runs need of a device's memory, known before any of them computes, and how many examples at a time fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ajest.bench.plan.config import BenchConfig
from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import objective, per_example_loss
from ajest.errors import check
from ajest.jobs.base import Room
from ajest.runtime.compiling import uncompiled
from ajest.runtime.seeding import Role, drawing_from, generator
from ajest.storage.checkpoint import read_sealed, write_sealed
from ajest.tasks.base import Task
from ajest.training.recipe import Recipe
from ajest.training.run_folder import RunConfig

#: Share of the free memory that is planned with: allocators leave gaps, and libraries bring work spaces of their own.
USABLE = 0.9


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes of its device.

    Attributes:
        weights: of the network in training, and of a proxy.
        gradients, moments: of their parameters; moments are Adam's two, or what another optimizer keeps.
        undo: the copy of the weights that a step which is given up goes back to.
        averages: of the weights.
        reference: its weights.
        data: training data that stay on the device.
        batch: a super-batch with its targets, once for each noise draw.
        shared: activations that do not grow with the examples, such as normalised weights.
        each: activations of one example.
        examples: at most so many are in the network at a time.
    """

    weights: int
    gradients: int
    moments: int
    undo: int
    averages: int
    reference: int
    data: int
    batch: int
    shared: int
    each: int
    examples: int

    @property
    def kept(self) -> int:
        """From the first step of the run to its last, whoever else computes."""
        return self.weights + self.gradients + self.moments + self.undo + self.averages + self.reference

    @property
    def passing(self) -> int:
        """While a step is taken, and what the runs of one process share."""
        return self.data + self.batch + self.shared + self.examples * self.each

    @property
    def total(self) -> int:
        return self.kept + self.passing


def memory_needed(config: BenchConfig, free: int = 0) -> dict[str, Memory]:
    """What the runs of a bench need, by the name of the arm or reference. Nothing is taken of a device: activations are
    counted on the meta device. The networks that judge samples are not in it.

    Args:
        config: of the bench.
        free: bytes of the device that nobody has taken, by which some sources decide whether their data stay there.
    """
    runs = {arm.name: config.run(arm, config.seeds[0]) for arm in config.arms} | {"the guide": config.guide()}
    if any(arm.reference == "strong" for arm in config.arms):
        runs["the strong reference"] = config.strong()
    costs = {role: _costs(config.task, role) for role in {role for run in runs.values() for role in _roles(run)}}
    held = getattr(config.task.source("cpu"), "held", None)
    return {name: _memory_of(run, costs, 0 if held is None else held(free)) for name, run in runs.items()}


def settle_micro_batch(root: Path, config: BenchConfig, room: Room | None, say: Callable[[str], None]) -> BenchConfig:
    """The bench with as many examples in its networks at a time as fit, equally many for all arms. The number is kept
    in memory.json: a bench that goes on does so with it, wherever it goes on.

    Args:
        root: the bench's folder.
        config: as it was asked for.
        room: what a run has of its device; None does not bound it.
        say: told what runs need, and if fewer examples are taken.

    Raises:
        UserError: not even one example fits.
    """
    path, asked = root / "memory.json", config.recipe.micro_batch
    known = read_sealed(path) if path.exists() else {}
    if known and known["asked"] == asked:
        config = _with_micro_batch(config, known["micro_batch"])
    begun = bool(known) or (root / "bench.json").exists()
    if room is None:
        return config
    fitting = config if begun else fitted(config, room)
    name, most = max(memory_needed(fitting, room.whole).items(), key=lambda found: found[1].total)
    say(f"a run ({name}) needs about {_gib(most.total)} of {_gib(room.free)} GiB that are free for it on {room.name}")
    if fitting.recipe.micro_batch != asked and not begun:
        say(f"{fitting.recipe.micro_batch} examples are in the network at a time, for all arms: more do not fit")
    if room.sharing > 1:
        say(
            f"{room.sharing} runs share a card: calibrated times are those of a run alone, measured ones are longer; "
            "--workers sets how many runs there are"
        )
    if not begun:
        write_sealed(path, {"asked": asked, "micro_batch": fitting.recipe.micro_batch, "bytes": most.total})
    return fitting


def fitted(config: BenchConfig, room: Room) -> BenchConfig:
    """The bench with the most examples at a time that fit: all that there are, or these halved as often as it takes.

    Raises:
        UserError: not even one fits.
    """
    needed = memory_needed(config, room.whole)
    largest = max(memory.examples for memory in needed.values())

    def most(examples: int) -> tuple[int, str]:
        found = {name: replace(m, examples=min(m.examples, examples)).total for name, m in needed.items()}
        return max((total, name) for name, total in found.items())

    size = largest
    while size > 1 and most(size)[0] > USABLE * room.free:
        size = -(-size // 2)
    total, name = most(size)
    fewer = f"fewer runs at a time ({room.sharing} share a card; see --workers) or " if room.sharing > 1 else ""
    check(
        total <= USABLE * room.free,
        f"a run ({name}) needs about {_gib(total)} GiB with one example at a time, and of {room.name} "
        f"{_gib(room.free)} GiB are free for it: take {fewer}a smaller network, or a larger device",
    )
    return config if size == largest else _with_micro_batch(config, size)


def runs_in_turns(config: BenchConfig, room: Room | None, most: int, say: Callable[[str], None]) -> int:
    """How many runs that one process makes in turns have their networks on its device at once.

    Args:
        config: of the runs.
        room: what a process has of its device; None does not bound it.
        most: how many there are at the most.
        say: told what they need.

    Raises:
        UserError: not even one fits.
    """
    if room is None:
        return most
    needed = memory_needed(config, room.whole)
    kept, passing = (max(getattr(m, part) for m in needed.values()) for part in ("kept", "passing"))
    count = min(most, int((USABLE * room.free - passing) // kept))
    name = max(needed, key=lambda found: needed[found].total)
    check(
        count >= 1,
        f"a run ({name}) needs about {_gib(needed[name].total)} GiB, and of {room.name} {_gib(room.free)} GiB are free "
        "for it: take a smaller network, or a larger device",
    )
    fewer = "" if count == most else f"; {most} do not fit"
    say(
        f"{count} runs that one process makes in turns need about {_gib(count * kept + passing)} of "
        f"{_gib(room.free)} GiB that are free for them on {room.name}{fewer}"
    )
    return count


def _with_micro_batch(config: BenchConfig, size: int | None) -> BenchConfig:
    """The bench with at most so many examples at a time in any network; None leaves it."""

    def smaller(recipe: Recipe) -> Recipe:
        own = [n for n in (recipe.micro_batch, size) if n is not None]
        return replace(recipe, micro_batch=min(own, default=None))

    guide = None if config.guide_recipe is None else smaller(config.guide_recipe)
    return replace(config, recipe=smaller(config.recipe), guide_recipe=guide)


@dataclass(frozen=True)
class _Costs:
    """Bytes of a network: its state, its parameters, activations (see `Memory`), an example with its target."""

    state: int
    parameters: int
    shared: int
    each: int
    example: int


def _roles(run: RunConfig) -> dict[Role, str]:
    """The networks of a run, and what each is there for."""
    roles: dict[Role, str] = {run.role: "training"}
    if run.arm.scoring.scorer == "proxy":
        roles["proxy"] = "training"
    if run.arm.reference == "guide":
        roles["guide"] = "reference"
    elif run.arm.reference == "strong":
        roles["strong"] = "reference"
    return roles


def _memory_of(run: RunConfig, costs: dict[Role, _Costs], data: int) -> Memory:
    roles = _roles(run)
    trained = [costs[role] for role, what in roles.items() if what == "training"]
    parameters, state = sum(c.parameters for c in trained), sum(c.state for c in trained)
    whole = run.recipe.super_batch
    examples = whole if any(kind.trains_on_all for kind in run.arm.kinds()) else run.arm.kept(whole)
    return Memory(
        weights=state,
        gradients=parameters,
        moments=run.recipe.of(run.arm).moments * parameters,
        undo=state,
        averages=len(run.recipe.ema_widths) * costs[run.role].state,
        reference=sum(costs[role].state for role, what in roles.items() if what == "reference"),
        data=data,
        batch=run.arm.scoring.draws * whole * costs[run.role].example,
        shared=max(c.shared for c in trained),
        each=max(c.each for c in trained),
        examples=min(examples, run.recipe.micro_batch or examples),
    )


def _costs(task: Task, role: Role) -> _Costs:
    source = task.source("cpu")
    batch = source.complete(source.draw(4, generator(0, "memory")))
    network = task.network(role, 0)
    try:
        two, four = (_saved(network.to("meta"), batch[torch.arange(n)].to("meta")) for n in (2, 4))
    except (RuntimeError, TypeError, ValueError):  # a network that looks at values; on the meta device there are none
        network = task.network(role, 0)
        two, four = (_saved(network, batch[torch.arange(n)]) for n in (2, 4))
    each = (four - two) // 2
    return _Costs(
        state=_bytes(network.state_dict().values()),
        parameters=_bytes(network.parameters()),
        shared=max(0, two - 2 * each),
        each=each,
        example=_bytes(v for v in vars(batch).values() if v is not None) // len(batch),
    )


def _saved(network: nn.Module, batch: Batch) -> int:
    """Bytes that a forward pass keeps for the backward pass beside the weights, and twice the largest of it for the
    gradients on their way."""
    own = {_storage(t) for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[_storage(tensor)] = tensor  # held, so that no other tensor can take its place
        return tensor

    with ExitStack() as stack:
        stack.enter_context(drawing_from(generator(0, "memory")))
        stack.enter_context(uncompiled())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(saved_tensors_hooks(pack, lambda tensor: tensor))
        losses = per_example_loss(network.train()(batch.x, batch.sigma, batch.label), batch)
        minimised = objective(losses, batch, network).sum()
    sizes = [tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own]
    del minimised
    return sum(sizes) + 2 * max(sizes, default=0)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _gib(count: float) -> str:
    return f"{count / 2**30:.3g}"
