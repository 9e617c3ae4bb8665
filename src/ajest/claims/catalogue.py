"""What is claimed, by which arms it is judged, and which control tests its mechanism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ajest.errors import unknown
from ajest.selection.arm import Arm
from ajest.selection.catalogue import arms_named

from .levels import TUNED_LEVELS

#: Claims of a group are arms of one bench; those of the last are guides of its baseline.
Group = Literal[
    "levels", "draws", "weights", "coupling", "targets", "terms", "selection", "course", "optimizer", "guides"
]
GROUPS: tuple[Group, ...] = get_args(Group)
Bound = Literal["", "between_levels", "levels", "importance", "several_levels"]


@dataclass(frozen=True)
class Claim:
    """A published claim. Those of the group course are judged beside a rate that does not fall to zero.

    Attributes:
        name: for options and pages.
        group: whose bench judges it.
        says: what is claimed, a clause that follows "that".
        paper: where.
        published: its figures, as published.
        seeds: over how many training seeds, in words.
        arms: that do what is claimed; of the group guides, names of guides (`ajest.study.guides`).
        controls: arms, or guides, that lack the mechanism; `tests` says in what else they differ.
        tests: what the controls would show, in a sentence.
        needs_noise: whether it has no meaning where targets are exact already.
        needs_exact: whether the best denoiser must be known.
        bound: field of a `Probe` that says what it could save at most; "" where gradients say nothing of it.
        doubts: what speaks against the published figures, in sentences; "" where nothing is known.
    """

    name: str
    group: Group
    says: str
    paper: str
    published: str
    seeds: str
    arms: tuple[str, ...]
    controls: tuple[str, ...] = ()
    tests: str = ""
    needs_noise: bool = False
    needs_exact: bool = False
    bound: Bound = ""
    doubts: str = ""

    def all_arms(self) -> tuple[Arm, ...]:
        """Those that do what is claimed, then the controls, but for those that are found in each setting; of guides
        none."""
        if self.group == "guides":
            return ()
        return arms_named(tuple(name for name in (*self.arms, *self.controls) if name != TUNED_LEVELS))

    @property
    def moves_only_noise(self) -> bool:
        """Whether its arms train on as many examples in as many operations as the baseline: then equal samples and
        equal operations are equal steps."""
        return all(arm.policy == "uniform" for arm in self.all_arms())

    @property
    def on_gpu(self) -> str:
        """The command that judges it with a network and images of a size that takes a GPU; "" if there is none."""
        images = "--data train.zip --validation val.zip"
        if self.group == "guides":
            return f"ajest study images --preset full --stages guides --network xs {images}"
        if self.group == "terms":  # networks of images show no middle
            return ""
        known = [arm.name for arm in self.all_arms() if not needs_exact(arm)]
        return f"ajest bench images --preset gpu-mini --tune {images} --arms {' '.join(['baseline', *known])}"


def needs_exact(arm: Arm) -> bool:
    """Whether an arm asks for the best denoiser there is."""
    allocation = arm.noising.allocation
    return "exact" in (arm.noising.target, arm.reference) or (allocation is not None and allocation.exact)


_NOT_SEEN = "none seen"
CHARGED, EARLIER = "trained, its time charged", "own snapshot at 1/8"
MIDDLE, DROPPED = f"{EARLIER}, at middle noise", "itself, a tenth dropped"
PROJECTED, RECTIFIED = f"{EARLIER}, projected (APG)", f"{EARLIER}, rectified (REG)"
_ALL = (
    Claim("stratified", "draws", "one noise level from each of as many ranges as there are examples lowers the "
          "gradient's variance for nothing", "arXiv 2107.00630", "on in every shipped configuration; no figure of its "
          "own", _NOT_SEEN, ("stratified",), bound="between_levels"),
    Claim("logit-normal", "levels", "a logit-normal density of the noise level is the best of 61 formulations",
          "arXiv 2403.03206", "best overall rank, CLIP and FID on ImageNet and CC12M", _NOT_SEEN,
          ("logit-normal", "shift-3"), (TUNED_LEVELS, "cosine-levels-same"),
          "The first control is EDM's density at its best mean and spread; the other draws other levels too and keeps "
          "the objective.",
          bound="levels"),
    Claim("laplace", "levels", "a Laplace density of the log signal-to-noise ratio trains faster", "arXiv 2407.03297",
          "FID-10K 7.96 against 10.85 of the cosine schedule, ImageNet-256, at the best guidance of each", _NOT_SEEN,
          ("laplace", "cauchy"), (TUNED_LEVELS, "cosine-levels", "cosine-levels-same"),
          "The first control is EDM's density at its best mean and spread. Between the others only the objective "
          "differs.",
          bound="levels",
          doubts="At a guidance weight of 1.5 the order turns round: FID 16.69 against 12.74 of the cosine "
          "schedule. Its EDM rival was not tuned."),
    Claim("speed", "levels", "drawing the noisiest levels a fifth as often trains three times as fast",
          "arXiv 2405.17403", "2.7 times as fast as Min-SNR, DiT-XL/2 on MetFaces and FFHQ, against uniform times on "
          "DDPM's linear schedule", _NOT_SEEN, ("speed-paper", "speed-code"),
          (TUNED_LEVELS, "ddpm-levels", "speed-ddpm"),
          "The first control is EDM's density at its best mean and spread; the others are the schedule that it was "
          "published on, without and with it.",
          bound="levels",
          doubts="In SpeeD's public code the Min-SNR rival has one weight for all levels, and two other rivals "
          "have slips of operator precedence. On levels like EDM's the rule hardly changes anything."),
    Claim("k-levels", "draws", "several noise levels an example lower the variance at equal forward passes",
          "arXiv 2605.21489", "2.6 times less computation by 8 levels, for frozen teachers", _NOT_SEEN,
          ("levels-2", "levels-4"), ("levels-4-stratified",),
          "The control stratifies the levels of an example as well; examples cost nothing here, so fewer of them lose "
          "diversity.", bound="several_levels"),
    Claim("importance", "draws", "drawing levels by their losses, with importance weights, lowers the variance",
          "arXiv 2102.09672, 2303.00848", "used for likelihood; no figure for samples", _NOT_SEEN,
          ("second-moment", "first-moment"), ("stratified",),
          "The control lowers the variance between levels without weights.", bound="levels"),
    Claim("infonoise", "draws", "drawing levels by the information that is left at them trains 1.4 times as fast",
          "arXiv 2602.18647", "1.4 times on CIFAR-10; version 2: matches or slightly exceeds on images", "not opened",
          ("infonoise",), ("infonoise-mmse",), "The control has the profile of the best denoiser, not an estimate.",
          needs_noise=True, bound="levels",
          doubts="Late in training the profile is the network's own error."),
    Claim("adaptive", "draws", "levels that follow where training makes progress train faster and better",
          "arXiv 2411.09998", "faster and better on CIFAR-10, CelebA-HQ and ImageNet; figures not opened", "not opened",
          ("adaptive-beta",), ("adaptive-beta-control",),
          "The control stays at Beta(1, 1) and costs the same; the reward is here the loss's own fall.",
          bound="levels",
          doubts="In its public code losses before and after a step have fresh noise and dropout, so the reward is "
          "mostly noise."),
    Claim("immiscible", "coupling", "noise that is assigned to near examples trains up to three times as fast",
          "arXiv 2406.12303", "up to 3 times, consistency models on CIFAR-10; 1.2 times on Tiny ImageNet",
          _NOT_SEEN, ("assignment",), ("assignment-norms",),
          "The control gives noise of the same lengths and nothing nearer.",
          needs_noise=True,
          doubts="Assigning the wrong way round helped as much in the paper. In few dimensions the gain is "
          "overstated: distances fall by half there, and by 2 % in 3,072."),
    Claim("nearest-noise", "coupling", "the nearest of a few noises of its own does as assigned noise does, for "
          "nothing", "arXiv 2505.18521", "FID 3.56 against 4.92, flow matching on CIFAR-10", _NOT_SEEN,
          ("nearest-4",), ("nearest-4-norms",),
          "The control gives noise of the same lengths and nothing nearer: two thirds of the distance gain is that.",
          needs_noise=True,
          doubts="It changes the law of the noise itself: of its variance 40 % are left in two dimensions, 98 % in "
          "3,072."),
    Claim("minibatch-ot", "coupling", "pairs drawn from the optimal transport plan of a batch train straighter flows",
          "arXiv 2302.00482", "FID 3.58 against 3.66 on CIFAR-10 at 400,000 steps; 3.74 against 3.64 at 1,000 sampler "
          "steps", _NOT_SEEN, ("minibatch-ot",), ("assignment-norms",),
          "The control gives noise of the same lengths in random directions.", needs_noise=True,
          doubts="With many sampler steps the published order turns round. Plans of a batch are biased."),
    Claim("min-snr", "weights", "the signal-to-noise ratio, at most 5, as weight trains 3.4 times as fast",
          "arXiv 2303.09556", "3.4 times as fast as earlier weights; FID 2.06 on ImageNet-256", _NOT_SEEN,
          ("min-snr",), ("soft-min-snr", "eps-weight"),
          "The soft control has no corner; the other is the weight that Min-SNR cuts off.",
          doubts="Both are weights of one loss: each is a bias against the other, and costs nothing."),
    Claim("stable-target", "targets", "averaging the target over many examples lowers its variance and so speeds up "
          "training", "arXiv 2302.00670", "FID 1.90 against 1.98 on CIFAR-10", "one run",
          ("stable-target-16", "stable-target-256"), ("exact-target",),
          "The control has no variance left in its target: no number of references can do better.", needs_noise=True),
    Claim("contrastive", "coupling", "pushing velocities away from those of other examples trains 9 times as fast",
          "arXiv 2506.05350", "FID 33.4 against 42.3, SiT-B/2 at 400,000 steps without guidance", _NOT_SEEN,
          ("contrastive",), ("contrastive-control",),
          "The control never trained for it: the affine map of the best denoiser acts in sampling alone.",
          needs_noise=True,
          doubts="Its minimiser is an affine map of the best denoiser. What that map alone does in sampling is not "
          "published."),
    Claim("internal-guidance", "terms", "a second answer, learned from the network's middle, guides the first", "arXiv "
          "2512.24176", "FID 30.6 against 33.0 by learning it, 16.2 by its guidance, SiT-B/2, ImageNet-256", _NOT_SEEN,
          ("internal-head",), ("dispersive",), "The control asks something else of the middle. The head guides at the "
          "weight of the trained guides, which guide all others."),
    Claim("dispersive", "terms", "hidden layers that are pushed apart learn better", "arXiv 2506.09027",
          "FID 32.4 against 36.5, SiT-B/2, ImageNet-256, without guidance", _NOT_SEEN, ("dispersive",)),
    Claim("jest", "selection", "training on what the learner finds hard and a reference easy takes 13 times fewer "
          "steps", "arXiv 2406.17711", "13 times fewer iterations, 10 times less computation, on CLIP-like training",
          _NOT_SEEN, ("jest-ema",), ("random", "inverted-ajest"),
          "Random choice keeps as many; the inverted rule takes the least learnable, by a trained guide.",
          bound="importance"),
    Claim("ajest", "selection", "the guide of autoguidance as JEST's reference, at the beginning or all along, trains "
          "better at equal time", "arXiv 2509.15267", "mandala 0.507 and 0.462 against 0.511, 4,096 steps; better at "
          "equal examples", "5 seeds", ("early-ajest", "ajest"), ("random",),
          "Random choice keeps as many and scores nothing.", bound="importance"),
    Claim("rho", "selection", "choosing by the loss above that of a held-out model takes 18 times fewer steps",
          "arXiv 2206.07137", "18 times fewer steps on Clothing-1M; scoring is not counted", _NOT_SEEN,
          ("rho-keep-0.1",), ("random-keep-0.1",), "Random choice keeps as many and scores nothing.",
          bound="importance",
          doubts="At equal computation others found no gain (arXiv 2307.06440)."),
    Claim("infobatch", "selection", "pruning examples of low loss with rescaled gradients saves 40 % without loss",
          "arXiv 2303.04947", "no loss at 40 % less, on classification", _NOT_SEEN, ("infobatch",),
          ("random-keep-0.65",), "Random choice keeps 65 % unscaled, and to the end; InfoBatch ends on all examples.",
          bound="importance",
          doubts="In diffusion the last loss is one draw of the noise level, so what is pruned is mostly chance."),
    Claim("evolved-sampling", "selection", "drawing by averages of past and present losses saves up to 45 % of the "
          "time", "arXiv 2509.23461", "up to 45 % of wall-clock time; no random baseline in its main tables",
          "none given", ("evolved",), ("random", "by-loss"),
          "Random choice scores nothing; the other control draws by present losses alone.", bound="importance",
          doubts="Rejected twice: no seeds, and averages whose memory was tuned."),
    Claim("pods", "selection", "keeping little and much in turns does better than one ratio at the same budget",
          "arXiv 2605.14773", "ImageNet-1k at half the cost; not tried on diffusion", "not opened", ("pods",),
          ("hard-keep-0.6", "random-waves"), "The first control keeps one ratio, the mean over equal steps; where "
          "small steps are cheaper there are more of them. The other keeps in turns and scores nothing.",
          bound="importance"),
    Claim("excess", "selection", "the loss above the best possible one says what can still be learned",
          "arXiv 2506.13763", "used for levels: FID 1.75 against 1.79 on CIFAR-10; as a score of examples by this "
          "project", "none given", ("learnable-exact",), ("random", "hard"),
          "Random choice scores nothing; hard takes the noise of targets for hardness.", needs_exact=True,
          bound="importance",
          doubts="Near the level where the least loss is zero the gap goes against FID. The published gain on "
          "CIFAR-10 is below two standard deviations of seeds."),
    Claim("remembered", "selection", "losses remembered from training choose as well as measured ones, for nothing",
          "this project", "in loss equivalent to random choice on the tree, exact targets; in mandala certainly better "
          "in one of two benches", "20 seeds",
          ("recall",), ("random", "hard"),
          "Random choice remembers nothing; hard measures what recall remembers.", bound="importance"),
    Claim("linear-to-zero", "course", "a rate that falls to zero over the whole run saves 60 % of the computation",
          "arXiv 2502.15938", "80 tokens a parameter beat 200 with a fall to a tenth, a language model of 610 million",
          _NOT_SEEN, ("linear-to-zero",), ("linear-to-tenth", "constant"),
          "One control falls to a tenth, the published rival; the other leaves it to averages of the weights alone to "
          "remove the noise of a high rate."),
    Claim("wsd", "course", "a constant rate with a short fall at the end does as well as one that falls all along",
          "arXiv 2404.06395, 2405.18392", "as low a loss as a cosine's, language models", _NOT_SEEN, ("wsd",),
          ("linear-to-zero", "constant"), "One control falls all along, the other not at all."),
    Claim("schedule-free", "optimizer", "steps at a constant rate, with gradients near their running mean, need no "
          "schedule", "arXiv 2405.15682", "as good as or better than tuned schedules on most of its problems",
          "not opened", ("schedule-free",), ("constant", "constant-ema-0.02", "constant-ema-0.2"),
          "The controls have a constant rate too, and power-function averages of their weights at three widths."),
    Claim("muon", "optimizer", "orthogonalised steps of matrices end at a lower loss than Adam's",
          "arXiv 2502.16982, 2510.19376", "18 % lower final loss, at 1.45 times the time of a step, a U-Net of 23 "
          "million weights on Navier-Stokes flows", "3 seeds", ("muon",),
          doubts="The margin is one model and one data set."),
    Claim("batch-warm-up", "optimizer", "a batch that grows during training needs fewer steps", "arXiv 2505.23971",
          "43 % fewer steps at equal loss, language models, batches that double and rates that follow their root",
          _NOT_SEEN, ("batch-warm-up",), ("random",),
          "The control keeps the small batch to the end. Here the batch grows once, fivefold, at one rate."),
    Claim("beta2", "optimizer", "the memory of Adam's second moment has to suit the length of the run", "arXiv "
          "1412.6980, 2312.02696", "0.999 by default, 0.99 in EDM2; no figure of its own", _NOT_SEEN,
          ("beta2-0.95", "beta2-0.999")),
    Claim("autoguidance", "guides", "a smaller, less trained version of the network guides its samples", "arXiv "
          "2406.02507", "FID 1.34 against 2.23 with classifier-free guidance, EDM2-S, ImageNet-512", _NOT_SEEN,
          (CHARGED,), ("trained",), "The control's training is not charged."),
    Claim("own-snapshot", "guides", "a run's own earlier snapshot guides as well as a network trained for it",
          "arXiv 2406.02507", "being less trained does most of autoguidance: FID 1.51 with a guide of the same size",
          _NOT_SEEN, ("own snapshot at 1/16", EARLIER, "own snapshot at 1/4"), (CHARGED,),
          "The control is a smaller network, by whose training the guided run is shorter."),
    Claim("self-guidance", "guides", "the network itself, told of more noise than there is, guides its samples",
          "arXiv 2412.05827", "on text to images alone; figures not opened", "not opened",
          ("itself, told 1.5 times the noise", "itself, told twice the noise"), (CHARGED,),
          "The control is a smaller network, by whose training the guided run is shorter."),
    Claim("in-situ", "guides", "the network with dropout on guides its own samples", "arXiv 2510.17136",
          "a workshop paper; figures not opened", "not opened", (DROPPED,), (CHARGED,),
          "The control is a smaller network, by whose training the guided run is shorter.",
          doubts="Networks that train without dropout never saw it. A third party calls it ineffective."),
    Claim("interval", "guides", "guidance at middle noise levels alone does better, and saves passes",
          "arXiv 2404.07724", "FID 1.40 against 1.81, EDM2-XXL, ImageNet-512, classifier-free guidance", _NOT_SEEN,
          (MIDDLE,), (EARLIER,), "The control has the same guide at every noise level."),
    Claim("apg", "guides", "guidance without its part along the sample bears higher weights", "arXiv 2410.02416",
          "higher weights without saturation; figures not opened", "not opened", (PROJECTED,), (EARLIER,),
          "The control has the same guide and leaves nothing out."),
    Claim("reg", "guides", "guidance that is rectified by the network's own slope samples what it means to", "arXiv "
          "2501.18865", "better fronts of FID and inception score, EDM2-S, ImageNet-512", _NOT_SEEN, (RECTIFIED,),
          (EARLIER,), "The control has the same guide, for half the cost of a sample."),
)  # fmt: skip


CLAIMS: dict[str, Claim] = {claim.name: claim for claim in _ALL}


def claims_named(names: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these names, or of groups of these names, in the order of the catalogue.

    Raises:
        UserError: an unknown name.
    """
    for name in names:
        if name not in CLAIMS and name not in GROUPS:
            raise unknown("claim", name, (*CLAIMS, *GROUPS))
    return tuple(claim for claim in _ALL if not names or claim.name in names or claim.group in names)
