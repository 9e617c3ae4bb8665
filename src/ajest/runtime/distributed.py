"""One run in several processes, as torchrun starts them: who does which part, and what all of them know.

Every process knows the same examples from the same random numbers, scores its part of them, and hears the scores of
all: a float an example is all the traffic that choosing needs, beside the first one's choice. What is chosen is then
shared out again, so that each trains on equally many; gradients are averaged by `DistributedDataParallel`. Everything
that is kept (weights, averages, memories, clocks) is the same in all processes, so that one writes checkpoints and any
number can go on from them.

Without torchrun there is one process, and everything here does nothing.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ajest.errors import PeerError, UserError, check

T = TypeVar("T")


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, with gloo on the CPU and NCCL on CUDA, whichever they will compute on.
    The first speaks for all on stdout."""
    # An optimiser imports this. If there is a group by then, the defaults of its functions hold on to it for good, its
    # threads live to the very end, and one that lets go of a tensor while the interpreter ends aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    cuda = torch.cuda.is_available()
    store, number, count = next(dist.rendezvous("env://"))
    # torchrun keeps its store when it starts all anew, with the addresses of those that were killed.
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=number, world_size=count)
    try:
        with ExitStack() as stack:
            if rank():
                stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            yield
        dist.barrier()  # who leaves while another still listens takes it down
    finally:
        gc.collect()  # what still holds on to the group would keep its threads too
        dist.destroy_process_group()


def rank_slice(n: int, chunk: int = 1) -> slice:
    """This process's part of n things: consecutive whole chunks, as many as the others' but for one."""
    return _part(n, chunk, rank())


def _part(n: int, chunk: int, k: int) -> slice:
    least, more = divmod(-(-n // chunk), world())
    start = k * least + min(k, more)
    return slice(min(n, start * chunk), min(n, (start + least + (k < more)) * chunk))


def gather(part: Tensor, n: int, chunk: int = 1) -> Tensor:
    """All n rows, from the `rank_slice(n, chunk)` of each process, in order and in all processes."""
    if world() == 1:
        return part
    return _joined(part, [s.stop - s.start for s in (_part(n, chunk, k) for k in range(world()))])


def gather_all(part: Tensor) -> tuple[Tensor, list[int]]:
    """(All rows of all processes in their order, in all of them; how many each has, of which any may have any number).

    Rows alike in type, shape and kind of device.
    """
    if world() == 1:
        return part, [len(part)]
    each = [torch.zeros(1, dtype=torch.int64, device=part.device) for _ in range(world())]
    dist.all_gather(each, torch.full_like(each[0], len(part)))
    lengths = torch.cat(each).tolist()
    return _joined(part, lengths), lengths


def _joined(part: Tensor, lengths: Sequence[int]) -> Tensor:
    """The rows of all processes, of which each has so many."""
    padded = torch.cat([part, part.new_zeros(max(lengths) - len(part), *part.shape[1:])])
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([p[:length] for p, length in zip(parts, lengths, strict=True)])


def of_first(tensor: Tensor) -> Tensor:
    """The first process's tensor, in all processes; theirs have its shape, type and kind of device."""
    if world() == 1:
        return tensor
    found = tensor.clone(memory_format=torch.contiguous_format)
    dist.broadcast(found, 0)
    return found


def in_chunks(do: Callable[[slice], Tensor], n: int, chunk: int) -> Tensor:
    """What `do` makes of n things, a chunk at a time, joined. Processes share the chunks, which are the same whatever
    their number: so is the result, bit for bit."""
    mine = rank_slice(n, chunk)
    parts = [do(slice(i, min(i + chunk, mine.stop))) for i in range(mine.start, mine.stop, chunk)]
    # Who has none still has to know what one looks like.
    return gather(torch.cat(parts) if parts else do(slice(0, min(n, chunk)))[:0], n, chunk)


def largest(values: Sequence[float]) -> list[float]:
    """The largest of each value over all processes."""
    if world() == 1:
        return list(values)
    found = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def anywhere(truth: bool) -> bool:
    """Whether it is so in any process."""
    return largest([float(truth)])[0] > 0


def once(do: Callable[[], T]) -> T:
    """Do something in the first process alone; all get what it returns, which JSON can hold, or its `UserError`."""
    if world() == 1:
        return do()
    found: dict[str, Any] = {}
    if rank() == 0:
        try:
            found["value"] = do()
        except UserError as error:
            found["error"] = str(error)
    text = json.dumps(found).encode()
    length = torch.tensor([len(text)])
    dist.broadcast(length, 0)
    letters = torch.zeros(int(length), dtype=torch.uint8)
    if rank() == 0:
        letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    dist.broadcast(letters, 0)
    found = json.loads(bytes(letters.tolist()))
    if "error" in found:
        raise PeerError(found["error"]) if rank() else UserError(found["error"])
    return found["value"]


def _keeps_own_statistics(module: nn.Module) -> bool:
    """Whether a module has running statistics of the examples that it sees."""
    normalises = isinstance(module, nn.modules.batchnorm._NormBase)
    return normalises and bool(module.track_running_stats) and not isinstance(module, nn.SyncBatchNorm)


def averaging(network: nn.Module) -> nn.Module:
    """The network such that its gradients are averaged over all processes in the backward pass.

    Raises:
        UserError: it keeps statistics of batches, of which each process would have its own.
    """
    if world() == 1:
        return network
    own = next((m for m in network.modules() if _keeps_own_statistics(m)), None)
    check(
        own is None,
        f"{type(own).__name__} keeps statistics of its own process's examples alone: convert it by "
        "torch.nn.SyncBatchNorm.convert_sync_batchnorm, or train with one process",
    )
    # Buffers are constants; sharing them at each forward pass would ask for equally many passes everywhere.
    parallel = nn.parallel.DistributedDataParallel
    names = ("forward_sync_buffers", "broadcast_buffers")  # torch 2.13 renamed it
    quiet = next(name for name in names if name in inspect.signature(parallel).parameters)
    return parallel(network, **{quiet: False})  # type: ignore[arg-type]
