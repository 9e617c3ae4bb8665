"""What two processes do that are made to differ, for test_distributed.py: `torchrun apart.py`."""

from dataclasses import replace

import pytest
import torch

from ajest.errors import PeerError, UserError
from ajest.runtime import distributed
from ajest.selection import agreement, flow
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import pick
from ajest.selection.scoring import Scores
from together import trainer_of


def of_both(tensor: torch.Tensor) -> torch.Tensor:
    return distributed.gather(tensor[None], distributed.world())


def second() -> bool:
    return distributed.rank() == 1


def the_first_chooses(name: str, **changes) -> None:
    """All scores are equal but, in the second process, for the last bit of some, by which it would choose otherwise."""
    arm = replace(ARMS[name], **changes)
    batch = trainer_of("uniform").selector.source.draw(256, torch.Generator().manual_seed(0))
    losses = torch.ones(256)
    if second():
        losses[::2] = torch.nextafter(losses[::2], losses.new_tensor(2.0))
    scores = Scores(losses, None, batch.sigma)
    alone, weight = flow._kept(scores, None, arm, 64, 0.0, torch.Generator().manual_seed(0))
    picked = pick(batch, scores, arm, 64, 0.0, torch.Generator().manual_seed(0))
    here, kept = of_both(alone), of_both(picked.kept)
    assert weight is not None or not torch.equal(here[0], here[1])
    assert torch.equal(kept[0], here[0])
    assert torch.equal(kept[1], here[0])
    assert torch.equal(of_both(picked.chosen.id).flatten(), batch.id[here[0]])
    assert (picked.weight is None) == (weight is None)
    if weight is not None:
        weights, alone = of_both(picked.weight), of_both(weight)
        assert not torch.equal(alone[0], alone[1])
        assert torch.equal(weights[0], alone[0])
        assert torch.equal(weights[1], alone[0])


def the_first_decides() -> None:
    """Both triggers see what the first compares."""
    assert agreement.compared_by_first((1.0 + second(), 2.0)) == (1.0, 2.0)
    assert agreement.compared_by_first((1.0, 2.0) if second() else None) is None


def is_found(name: str, what: str, harm) -> None:
    """A difference is named at the step at which both are compared next, by the first process."""
    trainer = trainer_of(name)
    for _ in range(3):
        trainer.step()
    if second():
        harm(trainer.selector)
    trainer.step()
    with pytest.raises(UserError, match=rf"at step 5 process 1 does not agree with process 0 on {what}: ") as found:
        trainer.step()
    assert isinstance(found.value, PeerError) == second()
    assert trainer.steps_taken == 4


def remembers_more(selector) -> None:
    selector.memory.losses["learner"].levels.sums[2] *= 2


def remembers_others(selector) -> None:
    cells = selector.memory.losses["learner"].examples
    cells.update(torch.arange(5), torch.ones(5))


def draws_others(selector) -> None:
    source = selector.source.draw
    selector.source.draw = lambda count, stream, eps=None: source(count, torch.Generator().manual_seed(1), eps)


def sees_the_learner_behind(selector) -> None:
    selector.trigger = replace(selector.trigger, advantage=selector.trigger.advantage - 1)


def rounding_is_let_pass() -> None:
    trainer = trainer_of("recall")
    for _ in range(5):  # they are compared in the first and in the fifth
        trainer.step()
        if second():
            trainer.selector.memory.losses["learner"].levels.sums *= 1 + 1e-6


def main() -> None:
    torch.set_num_threads(1)
    with distributed.joined():
        the_first_chooses("high-loss")
        the_first_chooses("high-loss", within=128)  # as in rank scope
        the_first_chooses("hard-unbiased", temperature=1e-7)
        the_first_decides()
        agreement.EVERY = 4
        is_found("recall", "what is remembered of scores", remembers_more)
        is_found("stale", "what is remembered of scores", remembers_others)
        is_found("rank", "the examples drawn", draws_others)
        is_found("early", "the trigger", sees_the_learner_behind)
        rounding_is_let_pass()


if __name__ == "__main__":
    main()
