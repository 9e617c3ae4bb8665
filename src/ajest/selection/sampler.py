"""A sampler for `torch.utils.data.DataLoader` whose choice follows remembered losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ajest.diffusion.batch import Batch
from ajest.errors import UserError, check, listed
from ajest.runtime import distributed
from ajest.runtime.seeding import generator

from .memory import LossMemory, LossTracker
from .registry import POLICIES, importance, inclusion_of, select
from .scoring import Scores


class LossSampler(Sampler[int]):
    """Numbers of examples, chosen at the beginning of each epoch by what their losses were when last seen.

    The loop tells it the losses of what it trained on, by `update`. An epoch's choice rests on the epochs before it, so
    it does not hang on how far a loader reads ahead. It is one order for all processes, of which each yields its part.
    `set_epoch` names an epoch; without it, one that was gone through is followed by the next.

    The state holds the order of the running epoch. After `load_state_dict` the epoch is yielded from its beginning, as
    loaders expect that skip what was trained on (`accelerate.skip_first_batches`, torchdata's `StatefulDataLoader`).
    Where none does, `skip(sampler.reported)` goes on right there.

    Args:
        size: examples of the data set.
        keep: share of those looked at in an epoch that is trained on.
        policy: name of a policy that chooses by the learner's loss, see `POLICIES`.
        super_batch: examples looked at in an epoch, those that come next in an endless row of random orders of all;
            None: all of them. Fewer let the choice follow the losses of a large data set more closely.
        half_life: sightings of an example after which an earlier loss counts half.
        seed: names the random numbers.
        num_replicas: processes that share each epoch. One (as without it) where the loader shares out what a sampler
            yields, as accelerate does.
        rank: the number of this process among them.
        dials: of the policy, such as `temperature`.

    Attributes:
        epoch: the running one, from 0.
        reported: examples of it whose losses `update` was told, of all processes together.

    Raises:
        UserError: an unknown policy or dial, a policy that reads more than losses, numbers out of their range, or a
            choice that fails.
    """

    def __init__(
        self,
        size: int,
        keep: float = 0.2,
        policy: str = "hard",
        *,
        super_batch: int | None = None,
        half_life: float = 4.0,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        **dials: object,
    ) -> None:
        looked_at = size if super_batch is None else super_batch
        check(1 <= looked_at <= size, f"super_batch must lie between 1 and the {size} examples, not at {looked_at}")
        check(0 < keep <= 1, f"the keep fraction must lie above 0 and at most at 1, not {keep}")
        check(0 <= rank < num_replicas, f"rank must lie between 0 and {num_replicas - 1}, not at {rank}")
        self.size, self.epoch, self.reported = size, 0, 0
        self._super_batch, self._count = looked_at, round(keep * looked_at)
        check(
            self._count >= num_replicas,
            f"a keep fraction of {keep} keeps {self._count} of {looked_at} examples: fewer than there are processes",
        )
        self._policy, self._dials, self._seed = policy, _checked(policy, dials), seed
        self._replicas, self._rank = num_replicas, rank
        trial = torch.rand(looked_at, generator=generator(seed, "sampler", "trial"))
        self._select(Scores(learner=trial, sigma=torch.ones(looked_at)), generator(seed, "sampler", "trial"))
        self._losses = LossTracker(LossMemory("id", half_life=half_life))
        self._order = torch.zeros(0, dtype=torch.int64)  # of the running epoch, once it is chosen
        self._weights: Tensor | None = None  # of all examples in it
        self._skipped, self._ended = 0, False

    def __len__(self) -> int:
        """Numbers that this process yields in an epoch: all yield as many."""
        return self._count // self._replicas

    def __iter__(self) -> Iterator[int]:
        if self._ended:
            self.set_epoch(self.epoch + 1)
        self._choose()
        end, first = len(self) * self._replicas, self._skipped // self._replicas
        self._skipped = 0
        return _Epoch(self._order[self._rank : end : self._replicas].tolist(), first, self._end)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self._ended = False
        if epoch != self.epoch:
            self.epoch, self.reported, self._order, self._weights = epoch, 0, self._order[:0], None

    def weights(self, ids: Tensor) -> Tensor:
        """Weights that make the mean of the running epoch's losses an unbiased estimate of the mean over all that it
        was chosen from, see `importance`: what InfoBatch (arXiv 2303.04947) rescales gradients by.

        Args:
            ids: numbers of examples, as this sampler yielded them in this epoch, int64, shape (n,).

        Returns:
            Of each, shape (n,), float32, on their device. In an epoch chosen at random, as the first is, all are 1.

        Raises:
            UserError: the policy's probability of choosing an example is not known.
        """
        check(
            inclusion_of(self._policy, **self._dials) is not None,
            f"the probability of being chosen is not known for policy {self._policy!r}: it has no weights",
        )
        return torch.ones_like(ids, dtype=torch.float32) if self._weights is None else self._weights.to(ids.device)[ids]

    def skip(self, examples: int) -> None:
        """Leave out the first so many examples, of all processes together, the next time that an epoch is begun: a
        multiple of the number of processes."""
        self._skipped = examples

    def update(self, ids: Tensor, losses: Tensor, sigma: Tensor | None = None) -> None:
        """Take in what was trained on in one step; each process reports its own part, all in the same step.

        What is remembered does not depend on how a step's examples were shared out. Waits for the device of the losses.

        Args:
            ids: numbers of the examples, as this sampler yielded them, int64, shape (n,).
            losses: of each, shape (n,). Those that are not finite are left out.
            sigma: noise level of each, shape (n,): losses are compared with what is usual at theirs. Without it, all
                count as of one level.

        Raises:
            UserError: shapes differ, or no example has such a number.
        """
        alike = ids.dim() == 1 and ids.shape == losses.shape and (sigma is None or sigma.shape == ids.shape)
        check(
            alike,
            f"ids and losses must be of one shape (n,), not {tuple(ids.shape)} and {tuple(losses.shape)}: "
            "report one loss for each example",
        )
        level = torch.ones_like(losses) if sigma is None else sigma
        columns = [part.detach().to(losses.device, torch.float64) for part in (ids, losses, level)]
        rows = distributed.gather_all(torch.stack(columns, 1))[0].cpu()
        rows = rows[rows[:, 0].argsort(stable=True)]
        check(not bool(rows[:, 2].isnan().any()), "a noise level is not a number: report the sigma of each example")
        self.reported += len(rows)
        numbers = rows[:, 0].long()
        wrong = numbers[(numbers < 0) | (numbers >= self.size)]
        if len(wrong):
            raise UserError(
                f"the loss of example {int(wrong[0])} is reported, and the data set has {self.size:,}: report the "
                "numbers that the sampler yields"
            )
        finite = rows[:, 1].isfinite()
        if finite.any():
            self._losses.learn(_examples(numbers[finite], rows[finite, 2].float()), rows[finite, 1].float())

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and numbers: the same in all processes."""
        losses = {f"losses/{name}": part.clone() for name, part in self._losses.state().items()}
        own = {"size": self.size, "epoch": self.epoch, "reported": self.reported, "order": self._order}
        chosen = {"count": self._count} | ({} if self._weights is None else {"weights": self._weights[self._order]})
        return own | chosen | losses

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, with any number of processes.

        Raises:
            UserError: it is the state of a sampler of another length, or that keeps more or fewer.
        """
        check(
            state["size"] == self.size,
            f"the sampler's state is of {state['size']:,} examples, and this data set has {self.size:,}: go on with "
            "the old data set, or begin anew without the state",
        )
        kept = state.get("count", self._count)
        check(
            kept == self._count,
            f"the sampler's state keeps {kept:,} examples of an epoch, and this sampler {self._count:,}: go on with "
            "the old keep fraction and super_batch, or begin anew without the state",
        )
        self.epoch, self.reported, self._order = int(state["epoch"]), int(state["reported"]), state["order"]
        self._weights = self._by_example(self._order, state["weights"]) if "weights" in state else None
        self._losses.restore({k.removeprefix("losses/"): v for k, v in state.items() if k.startswith("losses/")})
        self._skipped, self._ended = 0, False

    def _end(self) -> None:
        """Note that the running epoch was gone through."""
        self._ended = True

    def _choose(self) -> None:
        """Choose what the running epoch trains on, in which order, if that is not done yet."""
        if len(self._order):
            return
        looked_at, stream = self._looked_at(), generator(self._seed, "sampler", "choice", self.epoch)
        level = torch.ones(len(looked_at))
        scores = Scores(learner=self._losses.recall(_examples(looked_at, level)), sigma=level)
        if not len(self._losses.examples):
            kept = looked_at[select(scores, self._count, "random", stream)]
        else:
            chosen = self._select(scores, stream)
            kept, inclusion = looked_at[chosen], inclusion_of(self._policy, **self._dials)
            if inclusion is not None:
                self._weights = self._by_example(kept, importance(inclusion(scores, self._count), self._count)[chosen])
        self._order = kept[torch.randperm(len(kept), generator=stream)]

    def _select(self, scores: Scores, stream: torch.Generator) -> Tensor:
        return select(scores, self._count, self._policy, stream, **self._dials)

    def _by_example(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Weights of these examples where their numbers point."""
        return torch.ones(self.size).index_copy_(0, ids, weights)

    def _looked_at(self) -> Tensor:
        """The examples that the running epoch is chosen from."""
        start, parts = self.epoch * self._super_batch, list[Tensor]()
        missing = self._super_batch
        while missing:
            number, first = divmod(start, self.size)
            order = torch.randperm(self.size, generator=generator(self._seed, "sampler", "order", number))
            parts.append(order[first : first + missing])
            start, missing = start + len(parts[-1]), missing - len(parts[-1])
        return torch.cat(parts)


class _Epoch(Iterator[int]):
    """The numbers of an epoch from one on; it tells where it stands to loaders that ask iterators for their state."""

    def __init__(self, numbers: list[int], first: int, at_end: Callable[[], None]) -> None:
        self._numbers, self._next, self._at_end = numbers, first, at_end

    def __next__(self) -> int:
        if self._next >= len(self._numbers):
            self._at_end()
            raise StopIteration
        self._next += 1
        return self._numbers[self._next - 1]

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._next = state["next"]


def _checked(policy: str, dials: Mapping[str, object]) -> dict[str, object]:
    """The dials of a policy that chooses by losses alone: there is one stratum of the noise level.

    Raises:
        UserError: an unknown policy or dial, or a policy that reads something else.
    """
    inclusion_of(policy, **dials)  # which knows what there is
    known = POLICIES[policy]
    check(
        dials.get("normalise") != "running",
        "a sampler compares losses by their noise levels in update(): take another normalisation than running",
    )
    check(
        known.needs <= {"learner", "sigma"} and known.needs != {"sigma"},
        f"policy {policy!r} reads {listed(sorted(known.needs))}, and a sampler knows the learner's losses alone: take "
        "one that reads these, such as hard",
    )
    return ({"strata": 1} if "strata" in known.dials else {}) | dict(dials)


def _examples(ids: Tensor, sigma: Tensor) -> Batch:
    """What a memory asks of examples: their numbers and noise levels."""
    return Batch(sigma.new_empty(len(sigma), 0), sigma, torch.ones_like(sigma), ids)
