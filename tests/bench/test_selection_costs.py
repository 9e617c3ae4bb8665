"""What selection costs, from costs that are made up."""

import pytest

from ajest.bench.read.cost import cost_table, selection_costs
from ajest.bench.read.findings import findings
from ajest.selection.catalogue import ARMS, arms_named
from conftest import small_bench
from made_up import BASE, COSTS, at_time


def test_costs_by_hand():
    results = at_time({"baseline": BASE})
    (cost,) = selection_costs(results.config, COSTS)
    assert (cost.arm, cost.keep) == ("ajest", 0.2)
    assert cost.step_ratio == pytest.approx(8 / 8)
    assert cost.overhead_share == pytest.approx(4 / 8)
    assert cost.example_ratio == pytest.approx(5)
    assert cost.break_even == pytest.approx(0.2)
    assert selection_costs(results.config, {}) == []
    assert selection_costs(results.config, {"uniform": {"update": 1.0}}) == []


def test_break_even_is_where_the_line_from_now_to_the_whole_super_batch_meets_a_uniform_step():
    config = small_bench(arms=arms_named(("baseline", "ajest")))
    kind = config.arms[1].kinds()[0].label

    def at(step, uniform):
        return selection_costs(config, {"uniform": uniform, kind: step})[0].break_even

    # Overhead 3, update 1 at a fifth and 5 for all: 3 + 5 k = 6 at k = 0.6.
    assert at({"select": 3.0, "update": 1.0}, {"update": 5.0, "draw": 1.0}) == pytest.approx(0.6)
    # Overhead 7 is more than a uniform step takes: none.
    assert at({"select": 7.0, "update": 1.0}, {"update": 5.0, "draw": 1.0}) == pytest.approx(-0.2)
    # An update that takes as long whatever is kept has no such fraction.
    assert at({"select": 1.0, "update": 5.0}, {"update": 5.0}) == 0
    # The target is made for the whole super-batch where it is scored: it does not scale.
    assert at({"target": 2.0, "update": 1.0}, {"target": 2.0, "update": 5.0}) == pytest.approx(1.0)


def test_break_even_of_arms_that_measure_nothing_scales_the_target_too():
    for name in ("speed", "recall", "stale"):
        config = small_bench(arms=arms_named(("baseline", name)))
        costs = {kind: {"target": 0.4, "select": 4.0, "update": 1.0} for kind in map(str, config.arms[1].kinds())}
        (cost,) = selection_costs(config, {"uniform": {"target": 2.0, "update": 5.0}, **costs})
        # select 4 + (2 + 5) k = 7 at k = 3/7
        assert cost.break_even == pytest.approx(3 / 7), name


def test_break_even_of_a_proxy_pays_for_its_training():
    config = small_bench(arms=arms_named(("baseline", "proxy")))
    (kind,) = map(str, config.arms[1].kinds())
    learner, guide = (config.task.network(role, 0).flops() for role in ("learner", "guide"))
    r = guide / learner
    (cost,) = selection_costs(config, {"uniform": {"update": 5.0}, kind: {"select": 2.0, "update": 1.0}})
    assert cost.break_even == pytest.approx(0.2 + 2 * 0.8 / (5 * (1 + r) - 1))
    assert cost.model_ratio == pytest.approx(r / 0.2 / 3 + 1 + r)


def test_heads_of_tables_say_what_stands_under_them():
    found = findings(at_time({"baseline": BASE}))
    assert [head.value for head in found.cost_table.heads] == [
        "arm", "selecting step, uniform = 1", "scoring and choosing", "cost of an example trained on, uniform = 1",
        "the same by the cost model", "break-even keep fraction",
    ]  # fmt: skip
    assert [head.value for head in found.time_to_quality.heads] == [
        "metric, where the baseline ends", "arm", "seconds of training", "examples trained on", "seeds that got there",
    ]  # fmt: skip


def test_phases_that_a_step_does_not_have_cost_nothing():
    config = small_bench(arms=arms_named(("baseline", "speed")))
    (kind,) = map(str, config.arms[1].kinds())
    (cost,) = selection_costs(config, {"uniform": {"draw": 5.0}, kind: {"draw": 1.0}})
    assert (cost.overhead_share, cost.break_even, cost.step_ratio) == (0, 0, 0.2)


def test_cost_rows_for_people():
    config = small_bench(arms=arms_named(("baseline", "ajest")))
    kind = config.arms[1].kinds()[0].label
    uniform = {"update": 5.0, "draw": 1.0}
    for select, row in ((3.0, ["0.67", "75%", "3.33"]), (7.0, ["1.33", "88%", "6.67"])):
        ((arm, *found, model, even),) = cost_table(
            selection_costs(config, {"uniform": uniform, kind: {"select": select, "update": 1.0}})
        ).texts()
        assert (arm, found, even) == ("ajest", row, "0.60" if select == 3 else "none")
        assert model == f"{selection_costs(config, {'uniform': uniform, kind: uniform})[0].model_ratio:.2f}"


def test_only_arms_that_score_have_a_cost():
    config = small_bench(arms=(ARMS["baseline"], ARMS["random"], ARMS["hard"]))
    kinds = {kind.label: {"update": 1.0} for arm in config.arms for kind in arm.kinds()}
    assert [c.arm for c in selection_costs(config, kinds)] == ["hard"]
