"""A source whose examples are noised as an arm says."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch, Source
from ajest.errors import check
from ajest.runtime.counter import CounterStream, Rows, numbers_of
from ajest.runtime.seeding import generator as named
from ajest.runtime.transfer import to_device

from .ingredients import (
    IngredientRows,
    Ingredients,
    IngredientSource,
    by_example,
    has_ingredient_rows,
    has_ingredients,
)
from .noising import Noising
from .targets import stable_target

#: Importance weights that leave less of the examples than this make a run as good as without any.
LEAST_EFFECTIVE = 0.01


def noised(source: Source, noising: Noising, drawn: int) -> Source:
    """The source with examples noised as an arm says; the very source where that is as the task does it.

    Args:
        source: of the task.
        noising: of the arm.
        drawn: examples of a super-batch, over which levels are stratified.

    Raises:
        UserError: the source does not hand out what that takes, or the importance weights would leave next to nothing.
    """
    if not str(noising):
        return source
    check(
        has_ingredients(source),
        f"the task's source, {type(getattr(source, 'source', source)).__name__}, noises its examples itself, so an arm "
        f"cannot ({noising}): give it the members of ajest.diffusion.noising.ingredients.IngredientSource",
    )
    assert has_ingredients(source)
    check(
        noising.target != "exact" or source.exact is not None,
        "the exact target of these data is not known: leave out the target",
    )
    share = noising.effective_share(source)
    check(
        share >= LEAST_EFFECTIVE,
        f"levels {noising.levels} are so far from the task's own that importance weights would leave {share:.1g} of "
        "the examples: take a wider density, or leave out same_objective",
    )
    kind = NoisedRows if has_ingredient_rows(source) else NoisedSource
    return kind(source, noising, drawn)


class NoisedSource:
    """Noises the ingredients of another source; see `noised`."""

    def __init__(self, source: IngredientSource, noising: Noising, drawn: int) -> None:
        self.source, self.noising, self._drawn = source, noising, drawn
        self._target = source.own_target if noising.target is None else noising.target

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        """Noised examples, drawn on the host. A super-batch is stratified as a whole, whichever part of it is drawn."""
        whole = -(-count // self.noising.references) * self.noising.references
        parts, stratum = self.source.ingredients(whole, generator, eps), None
        if self.noising.stratified:
            order = torch.randperm(self._drawn, generator=named(generator.initial_seed(), "strata"))
            (stratum,) = to_device(parts.normal.device, order[torch.arange(whole) % self._drawn])
        return self._noised(parts, stratum)[:count]

    def complete(self, batch: Batch) -> Batch:
        """The batch with its target, if that is the exact one."""
        if batch.target is not None:
            return batch
        assert self.source.exact is not None
        return replace(batch, target=self.source.exact(batch.x, batch.sigma, batch.label))

    def _noised(self, parts: Ingredients, stratum: Tensor | None) -> Batch:
        known = self._known(parts, stratum)
        x0 = parts.x0
        x = x0 + by_example(known.sigma, x0) * parts.eps
        if self._target == "exact":
            return replace(known, x=x)
        return replace(known, x=x, target=stable_target(x, known.sigma, x0, parts.label, self.noising.references))

    def _known(self, parts: Ingredients, stratum: Tensor | None) -> Batch:
        """All but the examples themselves."""
        source, levels, normal = self.source, self.noising.levels, parts.normal
        if levels is None:
            if stratum is not None:
                normal = torch.special.ndtri(self._uniform(normal, stratum)).to(normal.dtype)
            sigma = source.noise(normal)
            x = (sigma.double() / source.sigma_data).log()
        else:
            x = levels.quantile(self._uniform(normal, stratum))
            sigma = (source.sigma_data * x.exp()).to(normal.dtype)
        weight = self.noising.weights(x, sigma, source)
        return Batch(sigma.new_empty(len(sigma), 0), sigma, weight, parts.id, None, parts.label)

    def _uniform(self, normal: Tensor, stratum: Tensor | None) -> Tensor:
        """Uniform numbers in (0, 1), float64, each within its stratum."""
        u = torch.special.ndtr(normal.double())
        return u if stratum is None else (stratum + u) / self._drawn


class NoisedRows(NoisedSource):
    """The same by numbers of rows, where they are needed."""

    source: IngredientRows

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        """Ids, noise levels, weights and labels of some rows."""
        numbers = numbers_of(rows, self.source.device)
        return self._known(self.source.ingredients_of(rows, stream, None), self._strata(numbers, stream))

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        """The noised examples of some rows. Those that share their references are drawn along."""
        together, index = _groups(rows, self.noising.references)
        numbers = numbers_of(together, self.source.device)
        parts = self.source.ingredients_of(together, stream, eps)
        return self._noised(parts, self._strata(numbers, stream))[index]

    def _strata(self, numbers: Tensor, stream: CounterStream) -> Tensor | None:
        """The stratum of some rows: a random order of all, the same whoever draws which part."""
        if not self.noising.stratified:
            return None
        words = stream.substream("strata").words(torch.arange(self._drawn, device=numbers.device), 2)
        order = ((words[:, 0] << 31) + (words[:, 1] >> 1)).argsort(stable=True)
        return order[numbers % self._drawn]


def _groups(rows: Rows, size: int) -> tuple[Rows, Tensor | slice]:
    """(the rows of all groups of `size` consecutive ones that have one of these, where these are among them)."""
    if size == 1:
        return rows, slice(None)
    if isinstance(rows, range) and rows.step == 1:
        first = rows.start // size * size
        return range(first, -(-rows.stop // size) * size), slice(rows.start - first, rows.stop - first)
    numbers = numbers_of(rows) if isinstance(rows, range) else rows
    group, place = torch.unique(numbers // size, return_inverse=True)
    whole = group[:, None] * size + torch.arange(size, device=group.device)
    return whole.flatten(), place * size + numbers % size
