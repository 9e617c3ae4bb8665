"""The straightforward way of doing things, as the yardstick of the benchmarks: correct, textbook, eager."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ajest import Scores
from ajest.tasks.tree.distribution import PER_BRANCH, branches
from ajest.tasks.tree.network import EnergyMLP


class PlainTree:
    """The exact score by einsum over all components, each covariance taken apart by an eigen-solve.

    Args:
        per_pair: solve for every pair of example and component, as one writes it down first; else once a component,
            because adding sigma^2 I keeps the eigenvectors.
        device: where to compute.
    """

    def __init__(self, per_pair: bool, device: str = "cpu") -> None:
        self.per_pair = per_pair
        chosen = [b for b in branches() if b.label == "A"]
        means = torch.cat([torch.from_numpy(b.means) for b in chosen])
        covariance = torch.stack([torch.from_numpy(b.covariance) for b in chosen for _ in range(PER_BRANCH)])
        phi = torch.tensor([b.phi for b in chosen for _ in range(PER_BRANCH)])
        self.means, self.covariance = means.float().to(device), covariance.float().to(device)
        self.log_phi = (phi / phi.sum()).log().float().to(device)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.per_pair:
            noise = sigma[:, None, None, None] ** 2 * torch.eye(2, device=x.device)
            values, vectors = torch.linalg.eigh(self.covariance + noise)  # (n, components, 2), (n, components, 2, 2)
        else:
            values, vectors = torch.linalg.eigh(self.covariance[None])
            values = values + sigma[:, None, None] ** 2
            vectors = vectors.expand(len(x), -1, -1, -1)
        gap = x[:, None] - self.means[None]
        turned = torch.einsum("nci,ncij->ncj", gap, vectors)
        exponent = -0.5 * (turned.square() / values).sum(-1) - 0.5 * values.log().sum(-1)
        weight = torch.softmax(exponent + self.log_phi - math.log(2 * math.pi), dim=1)
        pull = torch.einsum("ncj,ncij->nci", turned / values, vectors)
        return -torch.einsum("nc,nci->ni", weight, pull)


def plain_score(network: EnergyMLP, x: Tensor, sigma: Tensor) -> Tensor:
    """The network's score by differentiating its energy, so that training differentiates twice."""
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(network.energy(x, sigma).sum(), x, create_graph=True)[0]


def plain_step(tree: PlainTree, network: EnergyMLP, adam: torch.optim.Optimizer, x: Tensor, sigma: Tensor) -> None:
    """One uniform training step."""
    target = tree.score(x, sigma)
    loss = (sigma[:, None] * (plain_score(network, x, sigma) - target)).square().mean()
    loss.backward()
    adam.step()
    adam.zero_grad()


def keep_graph_step(
    tree: PlainTree,
    network: EnergyMLP,
    guide: EnergyMLP,
    adam: torch.optim.Optimizer,
    x: Tensor,
    sigma: Tensor,
    kept: Tensor,
) -> None:
    """An AJEST step that keeps the graph of the whole super-batch and indexes the loss (selection not included)."""
    target = tree.score(x, sigma)
    loss = (sigma[:, None] * (plain_score(network, x, sigma) - target)).square().mean(1)
    (sigma[:, None] * (plain_score(guide, x, sigma) - target)).square().mean(1)
    loss[kept].mean().backward()
    adam.step()
    adam.zero_grad()


def dense_jest(scores: Scores, count: int, chunks: int) -> Tensor:
    """The published rule with its B x B matrix."""
    matrix = scores.needed("learner")[:, None] - scores.needed("reference")[None, :]
    chosen = torch.empty(0, dtype=torch.int64)
    for chunk in range(chunks):
        n = len(chosen)
        logits = torch.zeros(len(scores))
        if n:
            logits = (matrix.diagonal() + matrix[chosen].sum(0) + matrix[:, chosen].sum(1)) / (2 * n + 1)
        logits[chosen] = -torch.inf
        size = count // chunks + (chunk < count % chunks)
        chosen = torch.cat([chosen, torch.multinomial(logits.softmax(0), size)])
    return chosen


def hard_by_strata(scores: Scores, count: int, strata: int, generator: torch.Generator) -> Tensor:
    """`hard` one stratum after the other, each drawn from by `torch.multinomial`."""
    losses, parts = scores.needed("learner"), scores.needed("sigma").argsort().tensor_split(strata)
    ahead = torch.randperm(strata, generator=generator)[: count % strata].tolist()  # who gets the remainder
    chosen = []
    for number, part in enumerate(parts):
        values = losses[part]
        chance = ((values - values.mean()) / values.std()).softmax(0)
        won = torch.multinomial(chance, count // strata + (number in ahead), generator=generator)
        chosen.append(part[won])
    return torch.cat(chosen)
