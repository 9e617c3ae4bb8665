"""The graphics cards that this process may use. Another process looks and ends: who asks takes none of their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

from ajest.errors import UserError, check, listed


@dataclass(frozen=True)
class Card:
    """A graphics card.

    Attributes:
        id: as CUDA_VISIBLE_DEVICES names it.
        name: of its kind.
        bfloat16: whether it computes in bfloat16 by itself.
        total, free: bytes of its memory, and those that nobody had taken when it was looked at.
    """

    id: str
    name: str
    bfloat16: bool
    total: int
    free: int


def visible() -> tuple[Card, ...]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, all where it is not set. They are looked at once.

    Raises:
        UserError: they cannot be looked at.
    """
    return _visible(os.environ.get("CUDA_VISIBLE_DEVICES"))


def of_one_kind() -> tuple[Card, ...]:
    """`visible`, if all are of one kind: times of others could not be compared.

    Raises:
        UserError: they differ, or there are none.
    """
    cards = visible()
    check(bool(cards), "there is no CUDA device here: use --device cpu")
    kinds: dict[str, list[str]] = {}
    for card in cards:
        kinds.setdefault(card.name, []).append(card.id)
    said = listed(f"{name} ({', '.join(ids)})" for name, ids in kinds.items())
    most = max(kinds.values(), key=len)
    check(
        len(kinds) == 1,
        f"the graphics cards differ, so that times of runs could not be compared: {said}; choose cards of one kind, "
        f"such as CUDA_VISIBLE_DEVICES={','.join(most)}",
    )
    return cards


@lru_cache
def _visible(ids: str | None) -> tuple[Card, ...]:
    if torch.cuda.is_initialized():
        found = _look()
    else:
        places = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "ajest.runtime.cards"]
        asked = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True, check=False
        )
        if asked.returncode:
            why = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
            raise UserError(f"the graphics cards cannot be looked at ({why}): use --device cpu")
        found = [Card(**facts) for facts in json.loads(asked.stdout.splitlines()[-1])]
    names = [name.strip() for name in ids.split(",")] if ids else [card.id for card in found]
    return tuple(Card(**(asdict(card) | {"id": name})) for name, card in zip(names, found, strict=False))


def _look() -> list[Card]:
    """What CUDA tells of each card, in this process."""
    found = []
    for number in range(torch.cuda.device_count()):
        with torch.cuda.device(number):
            free, total = torch.cuda.mem_get_info()
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            found.append(Card(str(number), torch.cuda.get_device_name(), bfloat16, total, free))
    return found


if __name__ == "__main__":
    print(json.dumps([asdict(card) for card in _look()]))
