"""Decoded images: on the GPU where it has room for them, else read from the host, one step ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ajest.errors import check
from ajest.runtime.transfer import pinned


@dataclass(frozen=True)
class Loading:
    """How training examples come to the device.

    Attributes:
        resident_bytes: decoded images up to so many bytes live on the GPU; None takes a quarter of its free memory.
        ahead: read the images of the next step in a thread while this one is taken; None does so for images that
            do not live on a GPU that trains on them.
        fused: make noise that is drawn on the GPU by one kernel (torch.compile).
    """

    resident_bytes: int | None = None
    ahead: bool | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        given = self.resident_bytes
        check(given is None or given >= 0, f"resident_bytes must be at least 0, not {given}")

    def keeps(self, images: np.ndarray, device: torch.device) -> bool:
        """Whether images are to live on the device."""
        if device.type == "cpu":
            return False
        return self.fits(images.nbytes, torch.cuda.mem_get_info(device)[0])

    def fits(self, size: int, free: int) -> bool:
        """Whether images of so many bytes are to live on a device of which so many bytes are free."""
        return size <= (free // 4 if self.resident_bytes is None else self.resident_bytes)


#: As the GPU has room.
USUAL = Loading()


class Pixels:
    """Images by number.

    Args:
        images: shape (N, ...), of any type; may be memory-mapped.
        device: where they are wanted.
        loading: how they come there.

    Attributes:
        resident: whether they live on the device, so that numbers had better be there too.
        ahead: whether `expect` reads.
    """

    def __init__(self, images: np.ndarray, device: torch.device, loading: Loading) -> None:
        self.images, self.device = images, device
        self.resident = loading.keeps(images, device)
        self.ahead = not self.resident and (device.type != "cpu" if loading.ahead is None else loading.ahead)
        self._type = torch.from_numpy(np.empty(0, images.dtype)).dtype
        self._there = torch.from_numpy(np.array(images)).to(device) if self.resident else None
        self._reader: ThreadPoolExecutor | None = None  # its thread ends with it
        self._expected: tuple[Tensor, Future[Tensor]] | None = None
        self._last: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images of these numbers, shape (n, ...), on the device."""
        if self._there is not None:
            return self._there[index]
        index = index.cpu()
        found = self._read_ahead(index) if self.ahead else None
        found = self._read(index, self._room(index)) if found is None else found
        self._last = (index, found) if self.ahead else None
        return found.to(self.device, non_blocking=True)

    def expect(self, index: Tensor) -> None:
        """Begin to read these images, numbers on the host: they are wanted next, in this order."""
        if not self.ahead:
            return
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "ajest-pixels")
        # A new thread has another current GPU: memory is pinned here.
        self._expected = index, self._reader.submit(self._read, index, self._room(index))

    def _read_ahead(self, index: Tensor) -> Tensor | None:
        """What was read for these numbers: just now, for another noise draw of the same images, or ahead."""
        if self._last is not None and torch.equal(self._last[0], index):
            return self._last[1]
        expected, self._expected = self._expected, None
        if expected is not None and torch.equal(expected[0], index):
            return expected[1].result()
        return None

    def _room(self, index: Tensor) -> Tensor:
        return pinned((len(index), *self.images.shape[1:]), self._type, self.device)

    def _read(self, index: Tensor, room: Tensor) -> Tensor:
        if self.images.flags.c_contiguous:
            # With "clip" nothing is buffered on the way, and other threads go on meanwhile.
            np.take(self.images, index.numpy(), axis=0, out=room.numpy(), mode="clip")
        else:  # of which `take` would copy all
            room.numpy()[:] = self.images[index.numpy()]
        return room
