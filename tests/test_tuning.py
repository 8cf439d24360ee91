"""Tuning a study's arms: what may be tried, what is drawn, chosen and said; studies that train are in test_tuned_study.py."""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from headswap.config import compose, conf_dir
from headswap.errors import ConfigError, RunError
from headswap.overview import describe
from headswap.search_space import Choice, Span, parse, value_of
from headswap.spine import StudyConfig
from headswap.study.choosing import arm_tuning, at_edge
from headswap.study.figures import figures
from headswap.study.plan import plan, study_folder
from headswap.study.report import hero, render
from headswap.study.results import compare
from headswap.study.static import drawn as drawn_by_matplotlib
from headswap.study.tables import design
from headswap.study.tuned import Curve, nested, read, recipes
from headswap.study.tuning import sweeps
from headswap.study.tuning_curves import overlap, with_curves
from headswap.study.tuning_drawings import tuning_table
from headswap.study.tuning_words import said, warnings_about
from headswap.study.verdict import headline, verdict
from headswap.sweep.findings import findings
from headswap.sweep.joined import Joined
from study_folders import Made, make_study
from sweep_folders import RATE as SPAN
from sweep_folders import told, trial
from tiny_runs import reviews, tiny
from tuned_studies import FINETUNE, RATE, SCRATCH, arm_tuned, pair, tuning

ARMS = {"finetune": {}, "scratch": {}}
SPACES = {
    arm: f"study.tuning.spaces.{arm}.train.learning_rate=tag(log,interval({ends}))"
    for arm, ends in {"finetune": "1e-5,5e-4", "scratch": "1e-4,3e-3"}.items()
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("table") / "reviews.csv", 80)


@pytest.fixture
def configured(table, tiny_body, tmp_path):
    def make(*words):
        fixed = ["study.sizes=[20,35]", "study.seeds=2", "train.max_steps=3"]
        return tiny(table, tiny_body, tmp_path, *fixed, *words)

    return make


# what may be tried


def test_the_words_of_the_two_spellings_compose_the_same_and_none_is_the_default():
    assert compose(["study.tuning=fair"]) == compose(["study/tuning=fair"])
    assert [compose([f"study.tuning={name}"]).study.tuning.trials for name in ("none", "quick", "fair")] == [0, 8, 12]
    assert compose().study.tuning.trials == 0 and sweeps(compose()) == []
    with pytest.raises(ConfigError, match=r"study/tuning: no such option; found fare \(did you mean fair\?\)"):
        compose(["study.tuning=fare"])


@pytest.mark.parametrize("name", ["none", "quick", "fair"])
def test_an_option_of_tuning_says_what_it_is_and_how_to_use_it(name):
    path = conf_dir() / "study" / "tuning" / f"{name}.yaml"
    assert len(describe(path)) > 15
    assert path.read_text().splitlines()[1] == f"# headswap compare study/tuning={name}"


def test_the_ranges_that_ship_are_those_of_the_protocol():
    spaces = {arm: parse(space) for arm, space in compose().study.tuning.spaces.items()}
    assert spaces["finetune"]["train.learning_rate"] == Span(1e-5, 5e-4, log=True)
    assert spaces["scratch"]["train.learning_rate"] == Span(1e-4, 3e-3, log=True)
    assert spaces["scratch"]["train.epochs"] == Span(8, 40, 8, whole=True)
    assert compose().study.arms["scratch"]["train"]["epochs"] * 5 == 40
    for space in spaces.values():
        assert space["train.warmup_share"] == Choice(("0.06", "0.1"))
        assert space["train.weight_decay"] == Choice(("0", "0.01", "0.1"))


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["study.tuning.trials=1"], "study.tuning.trials: one trial chooses nothing; found 1; set 2 or more"),
        (["study.tuning.pruner=hyperband"], "study.tuning.pruner: unknown choice; found 'hyperband'"),
        (["study.tuning.sampler=grid"], "study.tuning.sampler: unknown choice; found 'grid'"),
        (["study.tuning.first_rung=0.1"], "study.tuning.first_rung: an earlier rung favours what starts fast"),
        (["study.tuning.sizes=[]"], "study.tuning.sizes: which sizes are tuned; found []"),
        (["study.tuning.sizes=smallest"], "study.tuning.sizes: which sizes are tuned; found 'smallest'"),
        (["study.tuning.sizes=[21]"], "study.tuning.sizes: not among study.sizes; found 21; choose from 35, 20"),
        (["study.tuning.sizes=[20]", "study.sizes=[]"], "study.tuning.sizes: the study has no sizes"),
        (["study.tuning.seeds=[-1,1]"], "study.tuning.seeds: the study's own runs have that seed; found 1; choose"),
        (["study.tuning.seeds=[7,7]"], "study.tuning.seeds: a seed stands twice"),
        (["study.tuning.seeds=[7,8]", "study.tuning.sampler=tpe"], "study.tuning.seeds: only whole random trials"),
        (["study.tuning.trails=3"], "study.tuning.trails: no such key (did you mean study.tuning.trials?)"),
        (
            ["study.tuning.spaces.finetun.train.learning_rate=1e-4,1e-3"],
            "study.tuning.spaces.finetun: no such arm; found 'finetun' (did you mean finetune?); arms: finetune, scratch",
        ),
        (
            ["study.tuning.spaces.scratch.train.learning_rat=1e-4,1e-3"],
            "study.tuning.spaces.scratch: no such key; found train.learning_rat (did you mean train.learning_rate?)",
        ),
        (
            ["study.tuning.spaces.scratch.train.learning_rate=1e-4"],
            "study.tuning.spaces.scratch.train.learning_rate: nothing to choose from; found '1e-4'",
        ),
        (
            ["study.tuning.spaces.scratch.train.batch_size=interval(4.5,8)"],
            "study.tuning.spaces.scratch.train.batch_size: must be a whole number; found 4.5 (float)",
        ),
        (["study.tuning.spaces.scratch.train.batch_size=choice(4,0)"], "train.batch_size: must be above 0; found 0"),
        (["study.tuning.spaces.scratch.seed=choice(1,2)"], "study.tuning.spaces.scratch.seed: not to be tuned"),
        (["study.tuning.spaces.scratch.body.init=choice(a,b)"], "study.tuning.spaces.scratch.body.init: not to be tuned"),
        (["study.tuning.spaces.scratch=3"], "study.tuning.spaces.scratch: ranges by key; found '3'"),
        (["++study.arms.third.body.init=mean_var"], "study.tuning.spaces.third: an arm of a tuned study has ranges"),
        (["study.tuning.spaces.scratch=null", "study.tuning.spaces.finetune=null"], "study.tuning.spaces: no arm has"),
        (
            ["experiment=two_to_three", "study.tuning.spaces.chain.train.learning_rate=tag(log,interval(1e-5,1e-3))"],
            "study.tuning.spaces.chain: an arm that is a chain is not tuned; found 2 stages; set study.tuning.spaces",
        ),
        (["experiment=two_to_three"], "study.tuning.spaces.chain: an arm that is a chain is not tuned; found 2 stages; set study.tuning.spaces.chain="),
    ],
)  # fmt: skip
def test_a_mistake_in_the_tuning_is_refused_by_name_before_a_trial(configured, words, fault):
    with pytest.raises(ConfigError) as found:
        sweeps(configured("study.tuning=quick", *words))
    assert fault in str(found.value)


def test_too_few_settings_for_equal_trials_are_refused(configured):
    config = configured("study.tuning=quick")
    few = {"train": {"warmup_share": "choice(0,0.06,0.1)", "weight_decay": "0,0.1"}}
    made = dataclasses.replace(config.study.tuning, spaces=config.study.tuning.spaces | {"scratch": few})
    with pytest.raises(ConfigError, match=r"scratch: fewer settings than trials; found 6 for 8; widen the ranges"):
        sweeps(dataclasses.replace(config, study=dataclasses.replace(config.study, tuning=made)))


def test_the_full_study_is_tuned_but_for_its_baselines():
    made = sweeps(compose(["study=full", "study.tuning=fair"]))
    arms = ["finetune", "probe", "lp_ft", "scratch", "scratch_long", "mean_var"]
    assert [(each.arm, each.size) for each in made] == [(arm, size) for size in (1600, 400, 100) for arm in arms]


def test_in_a_study_of_chains_the_arms_that_are_none_are_tuned(tmp_path):
    words = [
        "experiment=long_documents",
        "task.source=a.csv",
        "task.label=b",
        "task.filler=c.csv",
        "study.tuning=quick",
    ]
    words += [f"body.tokenizer_source={tmp_path}", f"output.root={tmp_path}"]
    config, flags = compose(words), Namespace(overrides=words, config_dir=[])
    made = sweeps(config, flags)
    assert [each.arm for each in made] == ["transformer", "lstm", "lstm_last", "gru"]
    trial = made[1].made({RATE: "0.004"})
    assert (trial.stages, trial.train.learning_rate, trial.body["settings"]["cell"]) == ([], 0.004, "lstm")
    assert made[0].made({}).body["init"] == "random" and "run" not in made[0].made({}).body
    ranges = [*words, f"study.tuning.spaces.self_pretrained.{RATE}=tag(log,interval(1e-4,1e-2))"]
    with pytest.raises(ConfigError, match=r"spaces\.self_pretrained: an arm that is a chain is not tuned; found 2"):
        sweeps(compose(ranges), Namespace(overrides=ranges, config_dir=[]))


def test_null_keeps_an_arms_given_values_and_a_baseline_needs_no_ranges(configured):
    made = sweeps(configured("study.tuning=quick", "study.tuning.spaces.scratch=null", "study.tuning.sizes=largest"))
    assert [(each.arm, each.size, each.count) for each in made] == [("finetune", 35, 8)]


# what is drawn


def test_random_settings_are_drawn_once_for_all_and_8_of_them_are_the_first_of_12(configured):
    few, many = (sweeps(configured(f"study.tuning={name}")) for name in ("quick", "fair"))
    assert [(each.arm, each.size) for each in few] == [
        ("finetune", 35), ("scratch", 35), ("finetune", 20), ("scratch", 20)
    ]  # fmt: skip
    for first, second in zip(few, many, strict=True):
        assert (
            first.draws() == second.draws()[:8] == sweeps(configured("study.tuning=fair"))[few.index(first)].draws()[:8]
        )
        assert len({json.dumps(words) for _, words in second.draws()}) == 12
        assert first.plan.folder == second.plan.folder
    ends = {"finetune": (1e-5, 5e-4), "scratch": (1e-4, 3e-3)}
    for each in many:
        low, high = ends[each.arm]
        assert all(low <= float(words[RATE]) <= high for _, words in each.draws())


def test_a_sweeps_folder_hangs_on_the_arm_its_ranges_and_its_search_alone(configured):
    def folder(*words):
        return sweeps(configured("study.tuning=quick", *words))[0].plan.folder.name

    same = folder()
    assert same.startswith("tuning-text-transformer-full-pretrained-35-")
    assert folder("study.tuning.trials=5") == folder("study.seeds=9") == folder("study.margin=0.3") == same
    others = [
        folder(SPACES["finetune"].replace("5e-4", "6e-4")), folder("study.tuning.sampler=tpe"), folder("seed=4"),
        folder("study.tuning.seeds=[77]"), folder("study.arms.finetune.train.epochs=5"), folder("study.tuning.pruner=halving"),
    ]  # fmt: skip
    assert len({same, *others}) == 7


def test_a_studys_folder_hangs_on_its_tuning_only_where_it_is_tuned(configured):
    plain = study_folder(configured())
    assert study_folder(configured(SPACES["finetune"])) == plain
    tuned = study_folder(configured("study.tuning=quick"))
    assert len({plain, tuned, study_folder(configured("study.tuning=fair"))}) == 3


def test_trials_run_on_the_seed_before_the_studys_first_with_the_sizes_rows(configured):
    made = {(each.arm, each.size): each for each in sweeps(configured("study.tuning=quick", "seed=5"))}
    params, words = made["scratch", 20].draws()[0]
    job = made["scratch", 20].job(words, 3)
    assert (job.title, job.config.seed) == ("scratch 20 rows trial 3", 4)
    assert (job.config.data.train_rows, job.config.data.validation_rows) == (16, 4)
    assert job.config.train.learning_rate == pytest.approx(params[RATE], rel=1e-8)
    assert job.config.body["init"] == "random" and not job.config.output.keep_model
    assert job.config.sweep.trial == f"3 {made['scratch', 20].plan.folder.resolve()}"


def test_an_architectures_own_settings_can_be_tuned(configured):
    key = "body.config_overrides.hidden_dropout_prob"
    words = [f"study.tuning.spaces.{arm}.{key}=choice(0,0.1,0.3)" for arm in ARMS]
    made = sweeps(configured("study.tuning=quick", *words))[0]
    found = {made.job(words, 0).config.body["config_overrides"]["hidden_dropout_prob"] for _, words in made.draws()}
    assert found == {0, 0.1, 0.3}


def test_tuned_values_are_laid_over_the_arms_and_may_differ(configured):
    config = configured("study.tuning=quick")
    chosen = pair(35).chosen(config.study.sizes)
    chosen["scratch", 20] = nested({RATE: 3e-3, "train.weight_decay": 0.1})
    cells = {(cell.arm, cell.size, cell.seed): cell.job.config.train for cell in plan(config, None, chosen)}
    assert {made.learning_rate for (arm, _, _), made in cells.items() if arm == "finetune"} == {2e-4}
    assert cells["scratch", 35, 1].learning_rate == 9e-4 and cells["scratch", 20, 0].learning_rate == 3e-3
    assert cells["scratch", 20, 0].weight_decay == 0.1 and cells["finetune", 20, 0].weight_decay == 0.01
    with pytest.raises(ConfigError, match=r"differ in keys it does not name; found train\.batch_size"):
        plan(configured("++study.arms.scratch.train.batch_size=4"), None, chosen)


def test_the_nearest_tuned_size_serves_the_others():
    made = tuning(*(arm_tuned("scratch", size, SCRATCH) for size in (1600, 100)))
    found = {size: each.size for size in (50, 100, 390, 400, 800, 6400) if (each := made.of("scratch", size))}
    assert found == {50: 100, 100: 100, 390: 100, 400: 1600, 800: 1600, 6400: 1600}
    assert made.of("finetune", 100) is None


# what is chosen


def found_of(trials, **changes):
    return findings(told(trials, sampler="random", space={RATE: SPAN, **changes}), Path("sweep"))


def rated(number, rate, *values, **changes):
    settings = {RATE: rate} | changes.pop("settings", {})
    return trial(number, *values, settings=settings, **changes)


def test_the_best_validation_score_is_chosen_and_a_tie_by_the_lower_validation_loss(tmp_path):
    for number, loss in enumerate([0.9, 0.6, 0.5]):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        scores = {"validation": {"loss": loss}, "test": {"accuracy": 1.0 - number}}
        (folder / "result.json").write_text(json.dumps({"scores": scores}))
    trials = [rated(0, "1e-4", 0.8), rated(1, "2e-4", 0.8), rated(2, "3e-4", 0.7), rated(3, "4e-4")]
    made = arm_tuning(("scratch", 20), found_of(trials), tmp_path, (4, 1))
    assert made.chosen == {RATE: "2e-4"} and made.changes == {"train": {"learning_rate": 2e-4}}
    assert [each.state for each in made.trials] == ["complete", "complete", "complete", "fail"]
    assert made.trials[3].error.startswith("diverged")
    first = arm_tuning(("scratch", 20), found_of(trials), tmp_path / "gone", (4, 1))
    assert first.chosen == {RATE: "1e-4"}  # without the losses the first of the best


def test_of_settings_that_all_reach_the_best_score_the_one_in_their_middle_is_chosen(tmp_path):
    def chosen(rates, losses=(), **space):
        for number, loss in enumerate(losses):
            (tmp_path / f"run-{number}").mkdir(exist_ok=True)
            (tmp_path / f"run-{number}" / "result.json").write_text(
                json.dumps({"scores": {"validation": {"loss": loss}}})
            )
        trials = [
            rated(place, rate, score, settings={key: words[place] for key, (words, _) in space.items()})
            for place, (rate, score) in enumerate(rates)
        ]
        found = found_of(trials, **{key: {"words": list(every)} for key, (_, every) in space.items()})
        return arm_tuning(("scratch", 20), found, tmp_path, (len(rates), 1)).best

    # The boldest of those that are all right has the lowest loss, and may fail with the next seed.
    level = [("9e-4", 1.0), ("1e-4", 1.0), ("3e-4", 1.0), ("2e-5", 0.9)]
    assert chosen(level, (0.001, 0.3, 0.01, 0.5)) == 2
    assert chosen([*level, ("2.7e-4", 1.0)], (0.001, 0.3, 0.01, 0.5, 0.02)) == 2  # two in the middle: the lower loss
    assert chosen([*level, ("2.7e-4", 1.0)], (0.001, 0.3, 0.02, 0.5, 0.01)) == 4
    same, cells = [("3e-4", 1.0)] * 3, ("lstm", "gru", "tanh")
    assert chosen(same, (0.1, 0.2, 0.3), cell=(cells, cells)) == 0  # no word lies between two others
    assert chosen(same, (0.1, 0.2, 0.3), depth=(("1", "4", "2"), ("4", "2", "1"))) == 2  # numbers in their order


def test_only_the_first_trials_count_and_one_that_was_lost_keeps_its_place(tmp_path):
    trials = [rated(0, "1e-4", state="lost"), rated(1, "2e-4", 0.5), rated(2, "1e-4", 0.6), rated(3, "3e-4", 0.9)]
    made = arm_tuning(("scratch", 20), found_of(trials), tmp_path, (2, 1))
    assert [each.settings[RATE] for each in made.trials] == ["1e-4", "2e-4"] and made.score == 0.6


def test_a_setting_on_several_seeds_has_their_mean_and_fails_with_one_of_them(tmp_path):
    seeds = {"seed": {"words": ["-1", "-2"]}}
    trials = [
        rated(2 * place + seed, rate, *values, settings={"seed": f"-{seed + 1}"})
        for place, (rate, scores) in enumerate({"1e-4": (0.9, 0.3), "2e-4": (0.7, 0.7), "3e-4": (0.95, None)}.items())
        for seed, score in enumerate(scores)
        for values in ([] if score is None else [score],)
    ]
    made = arm_tuning(("scratch", 20), found_of(trials, **seeds), tmp_path, (3, 2))
    assert [each.score for each in made.trials] == [pytest.approx(0.6), pytest.approx(0.7), None]
    assert made.chosen == {RATE: "2e-4"} and list(made.space) == [RATE]


def test_an_arm_of_which_no_trial_finished_is_named_with_the_reason(tmp_path):
    with pytest.raises(
        RunError, match=r"no trial of scratch 20 rows finished; found 1 that did not, the first: diverged"
    ):
        arm_tuning(("scratch", 20), found_of([rated(0, "1e-4")]), tmp_path, (1, 1))


@pytest.mark.parametrize(
    ("dimension", "word", "side"),
    [
        (Span(1e-4, 1e-2, log=True), "1.2e-4", "low"),  # two decades: 5 % of them is a factor of 1.26
        (Span(1e-4, 1e-2, log=True), "1.3e-4", None),
        (Span(1e-4, 1e-2, log=True), "8e-3", "high"),
        (Span(1e-4, 1e-2, log=True), "7.8e-3", None),
        (Span(0.1, 1.1), "1.06", "high"),
        (Span(0, 1), "0.01", None),  # nothing lies below 0
        (Span(8, 40, 8, whole=True), "40", "high"),
        (Span(8, 40, 8, whole=True), "32", None),
        (Span(1, 2, 1, whole=True), "2", None),
        (Choice(("1e-5", "1e-3", "1e-4", "1e-2")), "1e-2", "high"),
        (Choice(("1e-5", "1e-3", "1e-4", "1e-2")), "1e-3", None),
        (Choice(("0", "0.01", "0.1", "1")), "0", None),
        (Choice(("0.06", "0.1")), "0.1", None),
        (Choice(("linear", "cosine", "constant", "other")), "linear", None),
    ],
)
def test_a_value_at_the_end_of_what_was_tried_is_told(dimension, word, side):
    edge = at_edge("key", dimension, word)
    assert (edge.side if edge else None) == side


# curves


def test_the_median_best_of_k_is_the_scores_own_quantile():
    """The best of k draws has its median at the quantile 0.5 ** (1 / k), here by NumPy's inverted distribution."""
    curve = with_curves(pair(), 0.95).curves[0]
    scores = [score for _, score in FINETUNE]
    expected = [np.quantile(scores, 0.5 ** (1 / count), method="inverted_cdf") for count in range(1, 7)]
    assert curve.middle == pytest.approx(expected)
    assert all(low <= middle <= high for low, middle, high in zip(curve.low, curve.middle, curve.high, strict=True))


def test_the_bands_hold_the_true_curve_at_all_numbers_of_trials_at_once():
    """Uniform scores: the median best of k is 0.5 ** (1 / k). 95 % of studies at least have all of it inside: the band
    holds the other quantiles of the best of k too.
    """
    dice, truth, held = np.random.default_rng(5), [0.5 ** (1 / count) for count in range(1, 9)], 0
    for _ in range(400):
        scores = [(f"{rate}e-4", float(score)) for rate, score in enumerate(dice.random(8), 2)]
        (curve,) = with_curves(tuning(arm_tuned("scratch", 20, scores)), 0.95).curves
        held += all(low <= true <= high for low, true, high in zip(curve.low, truth, curve.high, strict=True))
    assert held / 400 >= 0.95


def test_an_error_that_falls_has_the_same_curve_upside_down_and_a_failed_trial_is_the_worst():
    scores = [("2e-4", 0.2), ("3e-4", 0.4), ("4e-4", None), ("5e-4", 0.3), ("6e-4", 0.25)]
    falling = with_curves(tuning(arm_tuned("scratch", 20, scores), objective="rmse", greater_is_better=False), 0.95)
    turned = [(rate, None if score is None else 1 - score) for rate, score in scores]
    rising = with_curves(tuning(arm_tuned("scratch", 20, turned), objective="accuracy"), 0.95)
    (low,), (high,) = falling.curves, rising.curves
    assert low.middle == pytest.approx([1 - value for value in high.middle])
    assert low.high[0] is None and high.low[0] == 0.0  # the worst: no bound, and accuracy's
    assert low.low[0] is None and high.high[-1] == 1.0


def test_without_independent_draws_there_is_the_best_so_far_and_no_band():
    (curve,) = with_curves(tuning(arm_tuned("scratch", 20, SCRATCH), sampler="tpe"), 0.95).curves
    assert curve.middle == (0.52, 0.58, 0.63, 0.63, 0.63, 0.63) and curve.low == ()
    assert curve.why == "the trials were chosen, not drawn"


@pytest.mark.parametrize(
    ("highs", "first"),
    [((0.4, 0.5, 0.7), 3), ((0.7, 0.5, 0.7), 3), ((0.7, 0.7, 0.7), 1), ((0.7, 0.7, 0.5), None), ((None, 0.5, None), 3)],
)
def test_bands_overlap_from_the_last_place_where_they_are_apart(highs, first):
    below = Curve("scratch", 20, (0.3,) * 3, (0.1,) * 3, highs)
    above = Curve("finetune", 20, (0.8,) * 3, (0.6,) * 3, (0.9,) * 3)
    assert overlap(above, below) == overlap(below, above) == first


# what is said


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    made = Made({"finetune": 0.8, "scratch": 0.66}, sizes=(100, 400), seeds=3, rows=300)
    return compare(make_study(tmp_path_factory.mktemp("runs"), made), StudyConfig(arms=ARMS), ARMS)


def with_tuning(comparison, made):
    return dataclasses.replace(comparison, tuning=with_curves(made, 0.95))


def test_the_verdict_names_the_tuning_at_its_size(comparison):
    found = with_tuning(comparison, pair())
    assert "tuning: 6 random trials an arm at 400 rows)" in verdict(found)[0]
    assert dict(design(found))["Tuning"] == "6 random trials an arm at 400 rows"
    assert "provisional" not in headline(found) and "Provisional" not in " ".join(verdict(found))
    assert "tuning: none, the recipes are given values)" in verdict(comparison)[0]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (pair(seeds=(-1, -2)), "6 random trials an arm on 2 seeds each at 400 rows"),
        (pair(sampler="tpe", pruner="halving"), "6 TPE trials an arm at 400 rows, halving from 25 % of the steps on"),
        (pair(None), "6 random trials an arm at all rows"),
        (
            tuning(arm_tuned("scratch", 400, SCRATCH), given=("finetune",)),
            "6 random trials of scratch at 400 rows; finetune keeps its given values",
        ),
        (None, "none, the recipes are given values"),
    ],
)
def test_how_the_arms_were_tuned_is_said_in_words(made, text):
    assert said(made, ("finetune", "scratch"), 400) == text


def test_a_best_value_at_the_end_of_its_range_makes_the_verdict_provisional(comparison):
    edged = tuning(arm_tuned("finetune", 400, FINETUNE), arm_tuned("scratch", 400, [*SCRATCH[:5], ("0.0029", 0.7)]))
    found = with_tuning(comparison, edged)
    sentence = (
        "Provisional: tuning chose a value at the end of its range (train.learning_rate of scratch at 400 rows: 0.0029, of 1e-4 to "
        "0.003); widen it."
    )
    assert sentence in verdict(found)[1]
    assert headline(found).startswith("finetune is better than scratch, provisionally: +")
    assert (hero(found) or {})["outcome"] == "better, provisional"
    assert next(warnings_about(found.tuning)).startswith("Chosen at the end of a range: train.learning_rate of scratch")
    assert [row[4] for row in tuning_table(found).rows] == ["no", "high end"]
    assert len(verdict(found)) <= 5


def test_unequal_trials_are_said(comparison):
    scores = [(rate, None if place < 2 else score) for place, (rate, score) in enumerate(SCRATCH)]
    found = with_tuning(comparison, tuning(arm_tuned("finetune", 400, FINETUNE), arm_tuned("scratch", 400, scores)))
    told_so = "Unequal tuning at 400 rows: of 6 trials an arm did not fail 6 of finetune, 4 of scratch."
    assert told_so in verdict(found)[1] and told_so in list(warnings_about(found.tuning))


def test_where_the_bands_meet_the_order_is_said_to_be_open(comparison):
    found = with_tuning(comparison, pair())
    first, second = found.tuning.curves
    apart = [not (low <= high) for low, high in zip(first.low, second.high, strict=True)]
    expected = next(place for place in range(6) if not any(apart[place:])) + 1
    trials = f"{expected} trial{'s' * (expected > 1)}"
    said_so = f"Their tuning curves do not settle the order of the arms: bands overlap from {trials} on."
    assert said_so in verdict(found)[1]


def test_the_page_has_the_tuned_settings_the_curves_and_the_rates(comparison):
    found = with_tuning(comparison, pair())
    drawn = {figure.name: figure for figure in figures(found)}
    assert {"tuning", "rates"} <= drawn.keys() and "tuning" not in {figure.name for figure in figures(comparison)}
    rates = drawn["rates"].plots[0]
    marks = [each for each in rates.data if each["mode"] == "markers"]
    assert marks[0]["x"] == sorted(float(rate) for rate, _ in FINETUNE)
    assert marks[1]["x"] == [2e-4] and marks[1]["y"] == pytest.approx([80.0])  # the chosen one, ringed
    assert len(drawn["tuning"].table.rows) == 12 and len(drawn["rates"].table.rows) == 12
    for name in ("tuning", "rates"):
        assert b"scratch" in drawn_by_matplotlib(drawn[name], {"finetune": 0, "scratch": 1})["svg"]
    page = render(found)
    assert "1e-4 to 0.003, log" in page and "Tuned settings" in page


def test_recipes_are_the_arms_with_the_values_chosen_at_the_largest_size():
    arms = {"finetune": {"train": {"learning_rate": 1.0, "epochs": 4}}, "scratch": None, "tfidf": {"baseline": {}}}
    made = tuning(arm_tuned("finetune", 400, FINETUNE), arm_tuned("finetune", 100, SCRATCH))
    assert recipes(arms, made) == {
        "finetune": {"train": {"learning_rate": 2e-4, "epochs": 4}}, "scratch": {}, "tfidf": {"baseline": {}}
    }  # fmt: skip


def test_tuning_json_says_the_same_again_and_a_damaged_one_is_named(tmp_path):
    made = pair()
    (tmp_path / "tuning.json").write_text(json.dumps(dataclasses.asdict(made)))
    assert read(tmp_path) == made
    (tmp_path / "tuning.json").write_text('{"arms": [], "trials": 3}')
    with pytest.raises(RunError, match=r"tuning.json: not as headswap writes it; found KeyError"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("word", "value"), [("1e-4", 1e-4), ("8", 8), ("null", None), ("cosine", "cosine"), ("true", True)]
)
def test_an_override_word_has_the_value_that_hydra_gives_it(word, value):
    assert value_of(word) == value and type(value_of(word)) is type(value)


# one pool


class Listed:
    """A sweep's trials in little: paths to run."""

    def __init__(self, *paths):
        self.paths, self.heard_of, self.told = list(paths), [], []

    def take(self):
        return self.paths.pop(0) if self.paths else None

    def heard(self, job, event):
        self.heard_of.append(job)
        return event == "behind" and len(self.told) == 0

    def ended(self, outcome):
        self.told.append(outcome.job)


def test_sweeps_follow_one_another_and_hear_of_their_own_runs_and_of_shared_ones():
    jobs = {name: type("Job", (), {"folder": type("Folder", (), {"path": name})})() for name in "abc"}
    first, second = Listed(jobs["a"], jobs["b"]), Listed(jobs["b"], jobs["c"])
    joined = Joined([first, second])  # type: ignore[list-item]
    assert [joined.take() for _ in range(4)] == [jobs["a"], jobs["b"], jobs["c"], None]
    for job in jobs.values():
        joined.heard(job, {})  # type: ignore[arg-type]
        joined.ended(type("Outcome", (), {"job": job})())  # type: ignore[arg-type]
    assert first.told == [jobs["a"], jobs["b"]] and second.told == [jobs["b"], jobs["c"]]
