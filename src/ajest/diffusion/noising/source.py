"""A source whose examples are noised as an arm says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch, Source
from ajest.errors import check
from ajest.runtime.counter import CounterStream, Rows, numbers_of
from ajest.runtime.seeding import generator as named
from ajest.runtime.transfer import to_device

from .allocations import Seen
from .ingredients import (
    IngredientRows,
    Ingredients,
    IngredientSource,
    by_example,
    has_ingredient_rows,
    has_ingredients,
)
from .noising import Noising
from .numbers import HostNumbers, Numbers, RowNumbers
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
    allocation, clean = noising.allocation, noising.clean(source)
    check(
        allocation is None or not allocation.exact or source.exact is not None,
        f"allocation {allocation}: the exact denoiser of these data is not known: leave out exact",
    )
    check(
        allocation is None or allocation.exact or allocation.reads != "error" or clean,
        f"allocation {allocation}: it reads the whole error of the denoiser, of which averaged targets leave a part: "
        'set target to "x0" without references, or exact',
    )
    check(
        noising.pairing is None or clean,
        f"pairing {noising.pairing}: the exact target is not known for noise that is paired with examples: set target "
        'to "x0"',
    )
    check(
        noising.contrast is None or clean,
        f'contrast {noising.contrast}: it needs the clean example as target: set target to "x0", without references',
    )
    check(
        drawn % noising.copies == 0,
        f"a super-batch of {drawn} is no whole number of examples with {noising.copies} copies each",
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
        self._group = noising.group(drawn)
        self._density = noising.table(source)

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    @property
    def expect(self) -> Callable[[range, torch.Generator | CounterStream], None] | None:
        """Begins to read the examples of rows that come next, where the source reads ahead; else None."""
        inner = getattr(self.source, "expect", None)
        if inner is None:
            return None
        return lambda rows, stream: inner(_examples(_groups(rows, self._group)[0], self.noising.copies), stream)

    def allocate(self, seen: Seen | None) -> None:
        """Draw levels from now on by what was seen of their losses, see `Noising.table`."""
        self._density = self.noising.table(self.source, seen)

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        """Noised examples, drawn on the host. A super-batch is stratified as a whole, whichever part of it is drawn."""
        whole = -(-count // self._group) * self._group
        streams = (generator, generator if eps is None else eps)
        levels, noise = (HostNumbers(stream.initial_seed(), whole, self.source.device) for stream in streams)
        parts, stratum = self.source.ingredients(whole // self.noising.copies, generator, eps), None
        if self.noising.stratified:
            order = torch.randperm(self._ranges, generator=named(generator.initial_seed(), "strata"))
            (order,) = to_device(parts.normal.device, order)
            stratum = self._stratum(order, torch.arange(whole, device=order.device))
        return self._noised(self._made(parts, levels, noise), stratum)[:count]

    def complete(self, batch: Batch) -> Batch:
        """The batch with its target, if that is the exact one."""
        if batch.target is not None:
            return batch
        assert self.source.exact is not None
        return replace(batch, target=self.source.exact(batch.x, batch.sigma, batch.label))

    def _made(self, parts: Ingredients, levels: Numbers, noise: Numbers | None) -> Ingredients:
        """The ingredients of rows from those of their examples, copied and paired; without `noise` those of an
        outline."""
        copies, pairing = self.noising.copies, self.noising.pairing
        if copies > 1:
            example = torch.arange(len(parts.id), device=parts.id.device).repeat_interleave(copies)
            eps = None if noise is None else noise.normals("noise of copies", tuple(parts.x0.shape[1:]))
            parts = parts.of(example, levels.normals("levels of copies"), eps)
        if pairing is None:
            return parts
        among = min(pairing.among, self._drawn)
        if noise is not None:
            candidates = noise.normals("pairing", (pairing.candidates, *parts.x0.shape[1:]))
            parts = pairing.paired(parts, candidates, among)
        if pairing.with_replacement:
            place = torch.arange(len(parts.id), device=parts.id.device)
            parts = parts.of(place - place % among + levels.below("pairs", among), parts.normal)
        return parts

    def _noised(self, parts: Ingredients, stratum: Tensor | None) -> Batch:
        known = self._known(parts, stratum)
        x0 = parts.x0
        x = x0 + by_example(known.sigma, x0) * parts.eps
        if self._target == "exact":
            return replace(known, x=x)
        contrast, apart = self.noising.contrast, self.noising.copies
        if contrast is not None:
            return replace(
                known, x=x, target=contrast.target(x, known.sigma, self.source.sigma_data, x0, parts.eps, apart)
            )
        return replace(known, x=x, target=stable_target(x, known.sigma, x0, parts.label, self.noising.references))

    def _known(self, parts: Ingredients, stratum: Tensor | None) -> Batch:
        """All but the examples themselves."""
        source, density, normal = self.source, self._density, parts.normal
        if density is None:
            if stratum is not None:
                normal = torch.special.ndtri(self._uniform(normal, stratum)).to(normal.dtype)
            x, sigma = None, source.noise(normal)
        else:
            x = density.quantile(self._uniform(normal, stratum))
            sigma = (source.sigma_data * x.exp()).to(normal.dtype)
        weight = self.noising.weights(x, sigma, source, density)
        return Batch(sigma.new_empty(len(sigma), 0), sigma, weight, parts.id, None, parts.label)

    @property
    def _ranges(self) -> int:
        """Ranges of the noise level of which each is one example's, at one of its copies."""
        return self._drawn // self.noising.copies

    def _stratum(self, order: Tensor, rows: Tensor) -> Tensor:
        """The stratum of some rows: copies of an example lie as many examples apart."""
        copies = self.noising.copies
        return rows % copies * self._ranges + order[rows // copies % self._ranges]

    def _uniform(self, normal: Tensor, stratum: Tensor | None) -> Tensor:
        """Uniform numbers in (0, 1), float64, each within its stratum."""
        u = torch.special.ndtr(normal.double())
        return u if stratum is None else (stratum + u) / self._drawn


class NoisedRows(NoisedSource):
    """The same by numbers of rows, where they are needed."""

    source: IngredientRows

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        """Ids, noise levels, weights and labels of some rows."""
        parts, stratum, index = self._rows(rows, stream, None)
        return self._known(parts, stratum)[index]

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        """The noised examples of some rows. Those that share examples or noise are drawn along."""
        parts, stratum, index = self._rows(rows, stream, eps)
        return self._noised(parts, stratum)[index]

    def _rows(
        self, rows: Rows, stream: CounterStream, eps: CounterStream | None
    ) -> tuple[Ingredients, Tensor | None, Tensor | slice]:
        """(ingredients and strata of whole groups of rows, where the rows that were asked for are among these)."""
        together, index = _groups(rows, self._group)
        numbers = numbers_of(together, self.source.device)
        fused = getattr(self.source, "fused", False)
        levels, noise = (None if one is None else RowNumbers(one, numbers, fused) for one in (stream, eps))
        assert levels is not None
        parts = self.source.ingredients_of(_examples(together, self.noising.copies), stream, eps)
        return self._made(parts, levels, noise), self._strata(numbers, stream), index

    def _strata(self, numbers: Tensor, stream: CounterStream) -> Tensor | None:
        """The stratum of some rows: a random order of all, the same whoever draws which part."""
        if not self.noising.stratified:
            return None
        words = stream.substream("strata").words(torch.arange(self._ranges, device=numbers.device), 2)
        order = ((words[:, 0] << 31) + (words[:, 1] >> 1)).argsort(stable=True)
        return self._stratum(order, numbers)


def _examples(rows: Rows, copies: int) -> Rows:
    """The numbers of the examples of whole groups of rows."""
    if copies == 1:
        return rows
    return range(rows.start // copies, rows.stop // copies) if isinstance(rows, range) else rows[::copies] // copies


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
