"""What feature networks are shown, and packages that stand in for theirs."""

import sys
import types

import torch
from torch import Tensor


def noise(n: int = 3, side: int = 64) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def stub(monkeypatch, name: str, **content: object) -> None:
    module = types.ModuleType(name)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
