"""The chain as the command runs it: what it says, what it leaves, and that both are true.

`chain` is one real run, recorded. `rehearsal` is a run whose learners are stand-ins that always
say one known sentence. Each learner is also called alone. The oracle is plain enumeration.
"""

import copy
import inspect
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import numpy.testing as npt
import pytest
from PIL import Image
from scipy.special import expit, logsumexp

from minirl.__main__ import main
from minirl.experiments.alignment import chain as stages
from minirl.experiments.alignment import figures as alignment_figures
from minirl.experiments.alignment import run as alignment
from minirl.experiments.alignment.chain import METHODS, MethodRun, prepare, run_method
from minirl.experiments.alignment.report import describe_preparation
from minirl.experiments.alignment.run import run_chain
from minirl.rlhf import arithmetic
from minirl.rlhf.dpo import DPO, path_log_probs
from minirl.rlhf.reward_model import bag_of_words, fit_reward_model

TASK = arithmetic()
GOLD = TASK.utilities
CHOSEN = ["trpo", "dpo", "ipo", "best-of-n"]
REINFORCED = ["policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo"]
BETA = 0.3
OPTIMUM, BEST_OF_N, PPO = PATHS = ["learned optimum", "best-of-n", "PPO"]
HACKED = [
    "PPO on the learned reward without a KL penalty",
    "the optimum of the learned reward at beta = 0.02",
]
PLOTS = ["plot_frontier", "plot_learning", "plot_overoptimisation"]


# ---------------------------------------------------------------- the oracle: enumeration


def enumerated(policy):
    """Log-probability (X, N) of every response, token by token, without the tree."""
    responses = np.arange(TASK.num_responses)
    return np.array(
        [
            path_log_probs(policy, TASK.paths(np.full_like(responses, prompt), responses))[0]
            for prompt in range(len(TASK.prompts))
        ]
    )


def expected(log_probs, rewards):
    return (np.exp(log_probs) * rewards).sum() / len(rewards)


def divergence(log_probs, log_reference):
    said = log_probs > -np.inf
    of_each = np.exp(log_probs[said]) * (log_probs[said] - log_reference[said])
    return of_each.sum() / len(log_probs)


def tilted(log_reference, rewards, beta):
    """The optimum over whole responses, ref exp(r / beta) / Z, and J* = beta log Z."""
    log_weights = log_reference + rewards / beta
    log_totals = logsumexp(log_weights, axis=1, keepdims=True)
    return log_weights - log_totals, beta * log_totals.mean()


def best_of(log_reference, rewards, n):
    """F(<= r)^n - F(< r)^n, shared among the ties in proportion to the reference."""
    found = []
    for log_probs, row in zip(log_reference, rewards.round(12), strict=True):
        _, group = np.unique(row, return_inverse=True)
        mass = np.bincount(group, np.exp(log_probs))
        below = np.cumsum(mass)
        won = np.diff(np.concatenate([[0.0], below / below[-1]]) ** n)
        with np.errstate(divide="ignore"):
            found.append(log_probs + np.log(won[group]) - np.log(mass[group]))
    return np.array(found)


def place(log_probs, log_reference):
    """Where a distribution stands in the figure: KL and gold reward."""
    return divergence(log_probs, log_reference), expected(log_probs, GOLD)


def judged(log_probs, log_reference, learned):
    kl, reward = place(log_probs, log_reference)
    j_ref = expected(log_reference, GOLD)
    j_star = tilted(log_reference, GOLD, BETA)[1]
    return {
        "fraction_of_optimum": (reward - BETA * kl - j_ref) / (j_star - j_ref),
        "gold_reward": reward,
        "learned_reward": expected(log_probs, learned),
        "kl_to_reference": kl,
    }


def spoken(text):
    """The number of a response, from how it is printed."""
    words = "" if text == "(nothing)" else text.strip('"')
    return TASK.response(words.removesuffix("...").strip(), cut=words.endswith("..."))


def sections_of(page):
    """Title -> the line of averages, and the rows (prompt, response, gold, learned)."""
    found = {}
    for section in page.split("\n## ")[1:]:
        title, _, averages, *lines = section.splitlines()
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in lines
            if line.startswith("| What is")
        ]
        found[title] = (
            averages,
            [(TASK.prompt(prompt), spoken(text), g, m) for prompt, text, g, m in rows],
        )
    return found


def require_typical(log_probs, prompts, responses):
    """The mean log-probability of samples, within five standard errors of what it should be."""
    prompts, responses = np.array(prompts), np.array(responses)
    logs = np.where(log_probs > -np.inf, log_probs, 0.0)
    means = (np.exp(log_probs) * logs).sum(axis=1)
    variances = (np.exp(log_probs) * logs**2).sum(axis=1) - means**2
    surprise = log_probs[prompts, responses] - means[prompts]
    assert abs(surprise.sum()) < 5 * np.sqrt(variances[prompts].sum()) + 0.01


# ---------------------------------------------------------------- one real run, recorded


def bound(function, args, keywords):
    given = inspect.signature(function).bind(*args, **keywords)
    given.apply_defaults()
    return SimpleNamespace(**given.arguments)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """`run_chain`, once: what went in and out of each part, and what is left."""
    out = tmp_path_factory.mktemp("rlhf")
    calls = {name: [] for name in ["prepare", "align", "sample_pairs", "overoptimise", *PLOTS]}
    fits, said = [], []

    def recorded(name, original):
        def call(*args, **keywords):
            given = bound(original, args, keywords)
            given.rng = copy.deepcopy(getattr(given, "rng", None))
            given.result = original(*args, **keywords)
            calls[name].append(given)
            return given.result

        return call

    def recorded_dpo(**settings):
        def fit(*args, **keywords):
            fits.append(DPO(**settings).fit(*args, **keywords))
            return fits[-1]

        return SimpleNamespace(fit=fit)

    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            module = {"prepare": alignment, "overoptimise": alignment}.get(name, stages)
            module = alignment_figures if name in PLOTS else module
            patch.setattr(module, name, recorded(name, getattr(module, name)))
        patch.setattr(stages, "DPO", recorded_dpo)
        summary = run_chain(out, methods=CHOSEN, labels=500, seeds=1, seed=5, say=said.append)
    prepared = calls["prepare"][0].result
    log_reference = enumerated(prepared.tuned.policy)
    trpo, ppo = calls["align"]
    policies = {"trpo": trpo.result.policy, "dpo": fits[0].policy, "ipo": fits[1].policy}
    log_probs = {name: enumerated(policy) for name, policy in policies.items()}
    log_probs["best-of-n"] = best_of(log_reference, GOLD, 16)
    hacked = {
        HACKED[0]: enumerated(ppo.result.policy),
        HACKED[1]: tilted(log_reference, prepared.learned, 0.02)[0],
    }
    texts, page = "\n".join(said), (out / "samples.md").read_text()
    return SimpleNamespace(**locals())


@pytest.fixture(scope="module")
def prepared(chain):
    return chain.prepared


@pytest.fixture(scope="module")
def log_reference(chain):
    return chain.log_reference


def test_preferences_are_bradley_terry_of_gold_and_the_held_out_ones_are_fresh(chain, prepared):
    soft, hard, held_out = prepared.soft, prepared.hard, prepared.held_out
    for found, drawn in zip((soft, held_out), chain.calls["sample_pairs"], strict=True):
        margins = GOLD[found.prompts, found.first] - GOLD[found.prompts, found.second]
        npt.assert_allclose(found.labels, expit(margins), rtol=1e-12)
        for name in ("prompts", "first", "second"):
            npt.assert_array_equal(getattr(found, name), getattr(drawn.result, name))
    for name in ("prompts", "first", "second"):
        npt.assert_array_equal(getattr(hard, name), getattr(soft, name))
    assert (len(soft), len(held_out)) == (500, 5_000)
    assert set(hard.labels) == {0.0, 1.0}
    spread = np.sqrt((soft.labels * (1 - soft.labels)).sum())
    agreed = np.where(soft.labels > 0.5, hard.labels - soft.labels, soft.labels - hard.labels)
    assert abs(agreed.sum()) < 4 * spread
    one, other = (call.rng for call in chain.calls["sample_pairs"])
    assert one.random() != other.random()
    assert not np.array_equal(held_out.rows(slice(0, 500)).first, soft.first)


def test_the_reward_model_is_fitted_to_single_judgements_and_centred(prepared, log_reference):
    wanted = fit_reward_model(bag_of_words(TASK), prepared.hard)
    npt.assert_allclose(prepared.model.weights, wanted.weights, rtol=1e-9)
    shifts = wanted.rewards() - prepared.learned
    npt.assert_allclose(shifts, shifts[:, :1] + np.zeros_like(shifts), atol=1e-9)
    means = (np.exp(log_reference) * prepared.learned).sum(axis=1)
    npt.assert_allclose(means, 0, atol=1e-9)


def test_the_summary_is_true(chain, prepared, log_reference):
    """Every number again, from the found policies by enumeration, with nothing of the module."""
    written = json.loads((chain.out / "summary.json").read_text())
    assert written == chain.summary
    j_star = tilted(log_reference, GOLD, BETA)[1]
    npt.assert_allclose(written["j_ref"], expected(log_reference, GOLD), rtol=1e-10)
    npt.assert_allclose(written["j_star"], j_star, rtol=1e-10)
    assert list(written["methods"]) == CHOSEN
    sampled = 2 * (500 + prepared.pairs.identical)
    assert sampled > 1_000
    sentences = {"trpo": 61_440, "dpo": sampled, "ipo": sampled, "best-of-n": 16}
    for name, numbers in written["methods"].items():
        truth = judged(chain.log_probs[name], log_reference, chain.prepared.learned)
        for key, value in truth.items():
            npt.assert_allclose(numbers[key], value, rtol=1e-8, err_msg=f"{name} {key}")
        assert numbers["fraction_of_optimum_per_seed"] == [numbers["fraction_of_optimum"]]
        assert numbers["fraction_of_optimum"] < 1
        assert numbers["sentences"] == sentences[name]
        assert 0 <= numbers["seconds"] < 600
        assert {*numbers} == {*truth, "fraction_of_optimum_per_seed", "sentences", "seconds"}
    assert written["methods"]["trpo"]["fraction_of_optimum"] > 0.9
    told = {"beta": 0.3, "reward": "gold", "labels": 500, "seeds": 1, "seed": 5}
    assert {key: written[key] for key in told} == told
    assert written["best_of_n"] == 16
    assert "minirl-numpy" in written["versions"]
    for name in ("frontier", "learning", "overoptimisation"):
        with Image.open(chain.out / f"{name}.png") as picture:
            assert min(picture.width / 2, picture.height) > 400


def test_the_reward_model_is_judged_on_fresh_pairs(chain):
    """Accuracy, ceiling and calibration again, from the tables and the second draw of pairs."""
    found, fresh = chain.summary["reward_model"], chain.calls["sample_pairs"][1].result
    gold, model = (
        expit(table[fresh.prompts, fresh.first] - table[fresh.prompts, fresh.second])
        for table in (GOLD, chain.prepared.learned)
    )
    model = model.round(12)  # a pair the model can't tell apart is 0.5 sharp
    bins = np.bincount((model * 10).astype(int), model - gold)
    wanted = {
        "accuracy": np.select([model > 0.5, model < 0.5], [gold, 1 - gold], 0.5).mean(),
        "bayes_ceiling": np.maximum(gold, 1 - gold).mean(),
        "calibration_error": abs(bins).sum() / 5_000,
    }
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        npt.assert_allclose(found[key], value, atol=1e-9, err_msg=key)
    assert 0.7 < found["accuracy"] <= found["bayes_ceiling"] < 0.9
    (line,) = [line for line in chain.texts.splitlines() if "Bayes ceiling" in line]
    assert f"fresh pairs {found['accuracy']:.1%}" in line
    assert f"(Bayes ceiling {found['bayes_ceiling']:.1%})" in line
    assert f"calibration error {found['calibration_error']:.3f}" in line


def test_over_optimisation_follows_the_learned_reward_alone_and_is_drawn_truly(
    chain, log_reference
):
    learned, ppo = chain.prepared.learned, chain.ppo
    assert (ppo.algorithm, ppo.beta, ppo.seed, ppo.sentences) == ("ppo", None, 5, 51_200)
    assert ppo.settings is ppo.result.description["settings"]["reward_transform"] is None
    assert ppo.reference is chain.prepared.tuned.policy
    npt.assert_array_equal(ppo.rewards, learned)
    shift = expected(log_reference, GOLD)

    def truth(log_probs):
        return (*place(log_probs, log_reference), expected(log_probs, learned) + shift)

    (drawn,) = chain.calls["plot_overoptimisation"]
    assert list(drawn.paths) == PATHS
    points = {
        name: np.array([columns["kl"], columns["gold"], columns["learned"]]).T
        for name, columns in drawn.paths.items()
    }
    for path in points.values():  # all begin at the reference, with one reward
        npt.assert_allclose(path[0], (0, shift, shift), atol=1e-9)
    betas = np.geomspace(20.0, 0.02, 80)
    assert points[OPTIMUM].shape == (81, 3)
    for i in [0, 10, 40, 60, 79]:
        wanted = truth(tilted(log_reference, learned, betas[i])[0])
        npt.assert_allclose(points[OPTIMUM][i + 1], wanted, atol=1e-7)
    assert points[BEST_OF_N].shape == (13, 3)
    for i in [1, 4, 12]:
        wanted = truth(best_of(log_reference, learned, 2**i))
        npt.assert_allclose(points[BEST_OF_N][i], wanted, atol=1e-7)
    rows = chain.ppo.result.history.rows
    assert len(points[PPO]) == len(rows) + 1
    npt.assert_allclose(points[PPO][-1], truth(chain.hacked[HACKED[0]]), atol=1e-8)
    told = chain.ppo.measure(chain.trpo.result.policy)
    wanted = truth(chain.log_probs["trpo"])
    names = ["exact_reference_kl", "exact_gold_reward", "exact_reward"]
    # Recorded as it is; only the drawn path is shifted.
    unshifted = np.array([0, 0, shift])
    npt.assert_allclose([told[name] for name in names], wanted - unshifted, atol=1e-8)
    recorded = np.array([[row[name] for name in names] for row in rows])
    npt.assert_array_equal(points[PPO][:-1, :2], recorded[:, :2])
    npt.assert_allclose(points[PPO][:-1, 2], recorded[:, 2] + shift, rtol=0, atol=1e-12)
    for name, path in points.items():
        found = chain.summary["overoptimisation"][name]
        _, gold, model = path.T
        assert found["highest_gold_reward"] == gold.max()
        assert found["last_gold_reward"] == gold[-1]
        npt.assert_allclose(found["last_learned_reward"], model[-1] - shift, atol=1e-9)
        assert model[-1] > gold[-1]
        line = (
            f"gold {gold[0]:.2f} -> {gold.max():.2f} (peak) -> {gold[-1]:.2f}, "
            f"learned {model[0]:.2f} -> {model[-1]:.2f}"
        )
        assert line in chain.texts
    assert list(chain.summary["overoptimisation"]) == PATHS


def test_the_frontier_is_drawn_truly(chain, log_reference):
    (drawn,) = chain.calls["plot_frontier"]
    wanted = {name: [place(chain.log_probs[name], log_reference)] for name in CHOSEN}
    numbers = (2, 4, 8, 16, 64)
    wanted["best-of-n"] = [place(best_of(log_reference, GOLD, n), log_reference) for n in numbers]
    assert list(drawn.points) == CHOSEN
    for name, points in wanted.items():
        npt.assert_allclose(drawn.points[name], points, atol=1e-8, err_msg=name)
    assert drawn.labels == {"best-of-n": [f"n = {n}" for n in numbers]}
    npt.assert_allclose(drawn.reference, place(log_reference, log_reference), atol=1e-9)
    optimum = tilted(log_reference, GOLD, BETA)[0]
    npt.assert_allclose(drawn.optimum, place(optimum, log_reference), atol=1e-9)
    assert drawn.beta == BETA
    assert "gold reward" in drawn.title
    npt.assert_allclose(drawn.frontier.betas[[0, -1]], [100.0, 0.03])
    for i in range(0, 300, 23):
        best, _ = tilted(log_reference, GOLD, drawn.frontier.betas[i])
        found = drawn.frontier.kls[i], drawn.frontier.rewards[i]
        npt.assert_allclose(found, place(best, log_reference), atol=1e-9)


def test_learning_is_drawn_truly(chain, prepared, log_reference):
    (drawn,) = chain.calls["plot_learning"]
    assert list(drawn.curves) == ["trpo"]
    assert list(drawn.offline) == ["dpo", "ipo"]
    j_ref, j_star = expected(log_reference, GOLD), tilted(log_reference, GOLD, BETA)[1]
    npt.assert_allclose(drawn.reference_objective, j_ref, rtol=1e-10)
    npt.assert_allclose(drawn.optimal_objective, j_star, rtol=1e-10)

    def objective(name):
        kl, reward = place(chain.log_probs[name], log_reference)
        return reward - BETA * kl

    ((sentences, objectives),) = drawn.curves["trpo"]
    before, wanted = 0, []
    for row in chain.trpo.result.history.rows:
        if "exact_objective" in row:
            wanted.append((before, row["exact_objective"]))
        before = row["episodes"]
    wanted.append((61_440, objective("trpo")))
    npt.assert_allclose(np.array([sentences, objectives]).T, wanted, rtol=1e-9)
    assert sentences[0] == 0
    npt.assert_allclose(objectives[0], j_ref, rtol=1e-9)
    for name, found in zip(["dpo", "ipo"], chain.fits, strict=True):
        ((sentences, objectives),) = drawn.offline[name]
        measured = [row["exact_objective"] for row in found.rows if "exact_objective" in row]
        assert len(measured) == 50
        npt.assert_allclose(objectives, [*measured, objective(name)], rtol=1e-9)
        npt.assert_allclose(objectives[0], j_ref, rtol=1e-9)
        assert set(sentences) == {2 * (500 + prepared.pairs.identical)}


def test_the_texts_are_those_of_their_policies_and_show_their_true_rewards(chain, log_reference):
    truth = {
        "before: the reference": log_reference,
        **{f"after: {name}": log_probs for name, log_probs in chain.log_probs.items()},
        **{f"hacked: {name}": log_probs for name, log_probs in chain.hacked.items()},
    }
    sections = sections_of(chain.page)
    assert list(sections) == list(truth)
    for title, (averages, rows) in sections.items():
        log_probs = truth[title]
        means = [expected(log_probs, rewards) for rewards in (GOLD, chain.prepared.learned)]
        told = re.fullmatch(
            r"Mean over all answers: gold (-?\d+\.\d\d), learned (-?\d+\.\d\d)\.", averages
        )
        npt.assert_allclose([float(mean) for mean in told.groups()], means, atol=0.00501)
        assert [prompt for prompt, *_ in rows] == sorted([0, 1, 2, 3] * 4)
        for prompt, response, gold, learned in rows:
            assert gold == f"{GOLD[prompt, response]:.2f}"
            assert learned == f"{chain.prepared.learned[prompt, response]:.2f}"
        prompts, responses = [row[0] for row in rows], [row[1] for row in rows]
        assert (log_probs[prompts, responses] > -12).all()
        require_typical(log_probs, prompts, responses)
        if title.startswith("hacked"):  # the reference would hardly ever say these
            ratios = (log_probs - log_reference)[prompts, responses]
            assert ratios.mean() > 0.5 * divergence(log_probs, log_reference) > 0.5


def test_every_stage_is_told_in_order(chain):
    said, summary = chain.texts, chain.summary
    order = ["1. Supervised fine-tuning", "2. Preferences", "3. Reward model", "4. Learning"]
    order += ["trpo  ", "best of 16  ", 'answers to "What is 2x4?"', "5. Over-optimisation"]
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    assert f"J of the reference {summary['j_ref']:.3f}, J* {summary['j_star']:.3f}" in said
    for name, numbers in summary["methods"].items():
        shown = "best of 16" if name == "best-of-n" else name
        (line,) = re.findall(rf"^ +{shown} .* of the optimum .*$", said, re.MULTILINE)
        assert f"{numbers['fraction_of_optimum']:.1%} of the optimum" in line
        assert f"gold {numbers['gold_reward']:.3f} " in line
        assert f"KL {numbers['kl_to_reference']:.2f} nats" in line
        assert f"{numbers['sentences']:,} sentences" in line
        assert ("labelled with exact probabilities" in line) == (name in ("dpo", "ipo"))
        assert ("16 sentences per answer" in line) == (name == "best-of-n")


def test_another_experiment_is_not_overwritten(chain):
    before = (chain.out / "summary.json").read_bytes()
    with pytest.raises(ValueError, match=r"beta is 0\.3 there, 0\.5 here"):
        run_chain(chain.out, beta=0.5, methods=CHOSEN, labels=500, seeds=1, seed=5)
    assert (chain.out / "summary.json").read_bytes() == before


# ---------------------------------------------------------------- each learner, replaced


def require_run(run, after, measure, reference, chain, wanted_curve):
    """The run is that of method `after`; its curve ends at the objective of that policy."""
    kl, gold = place(chain.log_probs[after], chain.log_reference)
    final = gold - BETA * kl
    npt.assert_allclose(run.curve, [wanted_curve[0], [*wanted_curve[1], final]], rtol=1e-9)
    npt.assert_allclose(run.log_probs, chain.log_probs[after], atol=1e-9)
    assert run.sentences == wanted_curve[0][-1]
    npt.assert_allclose(measure(chain.policies[after])["exact_objective"], final, rtol=1e-9)
    assert reference is chain.prepared.tuned.policy


@pytest.mark.parametrize("reward", ["gold", "learned"])
@pytest.mark.parametrize("name", REINFORCED)
def test_what_a_method_that_samples_is_given(monkeypatch, chain, name, reward):
    """The rewards, the seed, the price; its curve is told at the sentences before each update."""
    columns = {
        "episodes": np.array([128, 256, 384, 512]),
        "exact_objective": np.array([-1.0, np.nan, 0.25, np.nan]),
    }
    seen, original = [], stages.align

    def stand_in(*args, **keywords):
        seen.append(bound(original, args, keywords))
        history = SimpleNamespace(columns=lambda: columns)
        return SimpleNamespace(policy=chain.policies["trpo"], history=history)

    monkeypatch.setattr(stages, "align", stand_in)
    run = run_method(name, chain.prepared, reward, 11)
    (given,) = seen
    npt.assert_array_equal(given.rewards, GOLD if reward == "gold" else chain.prepared.learned)
    assert (given.algorithm, given.beta, given.seed, given.settings) == (name, BETA, 11, None)
    assert given.sentences == stages.SENTENCES[name]
    curve = [0, 256, 512], [-1.0, 0.25]
    require_run(run, "trpo", given.measure, given.reference, chain, curve)


@pytest.mark.parametrize(("reward", "steps"), [("gold", 600), ("learned", 150)])
@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_what_a_method_that_learns_from_pairs_is_given(monkeypatch, chain, name, reward, steps):
    prepared, seen = chain.prepared, []

    def stand_in(**settings):
        def fit(*args, **keywords):
            seen.append(bound(DPO.fit, (DPO(**settings), *args), keywords))
            rows = [{"loss": 1.0, "exact_objective": -2.0}, {"loss": 0.5}]
            return SimpleNamespace(policy=chain.policies["dpo"], rows=rows)

        return SimpleNamespace(fit=fit)

    monkeypatch.setattr(stages, "DPO", stand_in)
    run = run_method(name, prepared, reward, 11)
    (given,) = seen
    assert given.self == DPO(beta=BETA, loss=name, steps=steps)
    assert given.preferences is (prepared.soft if reward == "gold" else prepared.hard)
    assert given.rng.random() == np.random.default_rng(11).random()
    curve = [2 * (500 + prepared.pairs.identical)] * 2, [-2.0]
    require_run(run, "dpo", given.measure, given.reference, chain, curve)


@pytest.mark.parametrize("reward", ["gold", "learned"])
def test_best_of_n_takes_the_best_by_the_reward_it_is_given(prepared, log_reference, reward):
    run = run_method("best-of-n", prepared, reward, 0)
    wanted = best_of(log_reference, GOLD if reward == "gold" else prepared.learned, 16)
    npt.assert_allclose(np.exp(run.log_probs), np.exp(wanted), atol=1e-10)
    assert run.sentences == 16
    assert run.curve.shape == (2, 0)


# ---------------------------------------------------------------- a run of stand-ins


SAYINGS = {  # of seed 7 and of seed 8
    "ppo": ("A: 4", "A: 6 :)"),
    "dpo": ("sorry", ""),
    "ipo": ("", ""),
    "best-of-n": ("8", "9 :)"),
}
REHEARSED = ["ppo", "dpo", "best-of-n"]
HACKED_SAYINGS = {"one": ":) :) :) :) :)", "other": "Great_question! :)"}


def always(text):
    """Log-probabilities (X, N) of who always says this."""
    response = TASK.response(text, cut=len(text.split()) == 5)
    log_probs = np.full(GOLD.shape, -np.inf)
    log_probs[:, response] = 0.0
    return log_probs


def stand_ins(patch, prepared):
    """`run_chain` with stand-ins for all that learns or draws; what they were given."""
    seen = SimpleNamespace(prepare=[], runs=[], over=[], drawn={}, said=[])
    path = {"kl": np.zeros(2), "gold": np.array([1.0, 0.5]), "learned": np.array([1.0, 3.0])}
    hacked = {name: always(text) for name, text in HACKED_SAYINGS.items()}

    def stand_in_run(name, given, reward, seed):
        assert given is prepared
        seen.runs.append((name, reward, seed))
        curve = np.array([[0.0, seed], [seed, 2.0 * seed]])
        return MethodRun(always(SAYINGS[name][seed > 7]), 100 * seed, curve, seconds=seed)

    def stand_in_over(given, seed):
        assert given is prepared
        seen.over.append(seed)
        return stages.Overoptimisation({"a path": path}, hacked)

    patch.setattr(alignment, "prepare", lambda **given: seen.prepare.append(given) or prepared)
    patch.setattr(alignment, "run_method", stand_in_run)
    patch.setattr(alignment, "overoptimise", stand_in_over)
    for name in PLOTS:

        def draw(*args, name=name, **keywords):
            seen.drawn[name] = (args, keywords)

        patch.setattr(alignment_figures, name, draw)
    return seen


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory, prepared):
    out = tmp_path_factory.mktemp("rehearsal")
    arguments = {"methods": REHEARSED, "labels": 500, "reward": "learned", "seed": 7}
    with pytest.MonkeyPatch.context() as patch:
        seen = stand_ins(patch, prepared)
        seen.summary = run_chain(out, say=seen.said.append, **arguments)
        seen.page = (out / "samples.md").read_text()
        seen.identity = json.loads((out / "experiment.json").read_text())
        return seen


@pytest.fixture
def seen(monkeypatch, prepared):
    return stand_ins(monkeypatch, prepared)


def names(seen):
    return [name for name, *_ in seen.runs]


def test_each_method_is_run_once_a_seed_and_the_seed_is_recorded(rehearsal):
    assert rehearsal.prepare == [{"beta": 0.3, "labels": 500, "seed": 7, "model": "table"}]
    assert rehearsal.runs == [(name, "learned", seed) for name in REHEARSED for seed in (7, 8)]
    assert rehearsal.over == [7]
    told = {
        "beta": 0.3,
        "reward": "learned",
        "labels": 500,
        "seeds": 2,
        "seed": 7,
        "model": "table",
    }
    assert told.items() <= rehearsal.summary.items()
    assert rehearsal.identity == {"kind": "rlhf", "methods": REHEARSED, **told}
    assert list(rehearsal.summary["methods"]) == REHEARSED


def test_the_summary_holds_means_over_seeds(rehearsal, prepared, log_reference):
    for name, numbers in rehearsal.summary["methods"].items():
        one, other = (
            judged(always(text), log_reference, prepared.learned) for text in SAYINGS[name]
        )
        for key in one:
            mean = (one[key] + other[key]) / 2
            npt.assert_allclose(numbers[key], mean, rtol=1e-8, err_msg=f"{name} {key}")
        fractions = [one["fraction_of_optimum"], other["fraction_of_optimum"]]
        npt.assert_allclose(numbers["fraction_of_optimum_per_seed"], fractions, rtol=1e-8)
        assert (numbers["sentences"], numbers["seconds"]) == (750, 7.5)
        (line,) = [line for line in rehearsal.said if f"{numbers['gold_reward']:.3f} " in line]
        assert f"{numbers['fraction_of_optimum']:.1%} of the optimum" in line
        assert ("with one judgement per pair" in line) == (name == "dpo")
    ends = {"highest_gold_reward": 1.0, "last_gold_reward": 0.5, "last_learned_reward": 2.0}
    assert rehearsal.summary["overoptimisation"] == {"a path": ends}


def test_the_figures_show_every_seed_and_judge_by_gold(rehearsal, prepared, log_reference):
    """With `--reward learned`, best-of-n searches by the learned reward; the axis stays gold."""
    (_, points), keywords = rehearsal.drawn["plot_frontier"]
    for name in ("ppo", "dpo"):
        wanted = [place(always(text), log_reference) for text in SAYINGS[name]]
        npt.assert_allclose(points[name], wanted, rtol=1e-9)
    wanted = [
        place(best_of(log_reference, prepared.learned, n), log_reference) for n in (2, 4, 8, 16, 64)
    ]
    npt.assert_allclose(points["best-of-n"], wanted, atol=1e-8)
    assert "learned reward" in keywords["title"]
    (curves,), keywords = rehearsal.drawn["plot_learning"]
    assert "learned reward" in keywords["title"]
    wanted = [[[0, seed], [seed, 2 * seed]] for seed in (7, 8)]
    assert list(curves) == ["ppo"]
    npt.assert_array_equal(curves["ppo"], wanted)
    assert list(keywords["offline"]) == ["dpo"]
    npt.assert_array_equal(keywords["offline"]["dpo"], wanted)
    (paths,), keywords = rehearsal.drawn["plot_overoptimisation"]
    assert list(paths) == ["a path"]
    assert "500 labels" in keywords["title"]


def test_the_texts_are_those_of_the_first_run_and_before_of_the_reference(rehearsal, log_reference):
    sections = sections_of(rehearsal.page)
    sayings = {f"after: {name}": SAYINGS[name][0] for name in REHEARSED}
    sayings |= {f"hacked: {name}": text for name, text in HACKED_SAYINGS.items()}
    assert list(sections) == ["before: the reference", *sayings]
    for title, text in sayings.items():
        said = {response for _, response, *_ in sections[title][1]}
        assert said == {TASK.response(text, cut=len(text.split()) == 5)}
    (told,) = [text for text in rehearsal.said if 'answers to "What is 2x4?"' in text]
    before, *after = told.splitlines()[1:]
    assert before.split()[0] == "before"
    for name, line in zip(REHEARSED, after, strict=True):
        quoted = f'"{SAYINGS[name][0]}"'
        assert line == f"      {name:18}{quoted}   {quoted}   {quoted}"
    answers = before.removeprefix("      before").strip().split("   ")
    prompt = TASK.prompt("What is 2x4?")
    require_typical(log_reference, [prompt] * 3, [spoken(text) for text in answers])


def test_best_of_n_alone_has_no_learning_curve(seen, tmp_path):
    run_chain(tmp_path, methods=["best-of-n"], seed=7, seeds=1, say=seen.said.append)
    assert list(seen.drawn) == ["plot_frontier", "plot_overoptimisation"]
    assert seen.runs == [("best-of-n", "gold", 7)]


# ---------------------------------------------------------------- preparation, arguments, command


def require_judgements_told(text, prepared, count):
    pattern = r"^ +(What is \S+)  (.+) > (.+)   \(probability of this judgement (\d+)%\)$"
    shown = re.findall(pattern, text, re.MULTILINE)
    assert len(shown) == count
    hard = prepared.hard
    for row, (prompt, won, lost, probability) in enumerate(shown):
        x, winner, loser = TASK.prompt(prompt), spoken(won), spoken(lost)
        assert x == hard.prompts[row]
        pair = hard.first[row], hard.second[row]
        assert (winner, loser) == (pair if hard.labels[row] else pair[::-1])
        assert int(probability) == pytest.approx(
            100 * expit(GOLD[x, winner] - GOLD[x, loser]), abs=0.501
        )


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_few_labels_are_enough_to_describe_the_preparation(labels):
    prepared = prepare(beta=0.3, labels=labels, seed=labels)
    text = describe_preparation(prepared, np.random.default_rng(0))
    assert f"2. Preferences: {labels} pairs" in text
    require_judgements_told(text, prepared, labels)


def test_the_preparation_is_described_truly(chain, prepared, log_reference):
    require_judgements_told(chain.texts, prepared, 4)
    assert f"gold reward of the reference {expected(log_reference, GOLD):.3f};" in chain.texts
    assert f"; {prepared.pairs.identical} pairs of identical answers" in chain.texts
    lines = re.findall(r"^ +(What is \S+)  ([^>\n]+)$", chain.texts.split("2. ")[0], re.MULTILINE)
    assert [TASK.prompt(prompt) for prompt, _ in lines] == [0, 1, 2, 3]
    responses = [spoken(text) for _, texts in lines for text in texts.strip().split("   ")]
    require_typical(log_reference, [0, 0, 1, 1, 2, 2, 3, 3], responses)


def test_another_seed_prepares_other_pairs_and_the_same_seed_the_same(prepared):
    def numbers(found):
        pairs, judged = found.hard, found.held_out
        return pairs.first, pairs.labels, judged.first, found.learned, found.tuned.policy.parameters

    again, other = (numbers(prepare(beta=0.3, labels=500, seed=seed)) for seed in (5, 6))
    for one, same, another in zip(numbers(prepared), again, other, strict=True):
        npt.assert_array_equal(one, same)
        assert not np.array_equal(one, another)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"beta": 1e9}, "beta must be from .* to .* for these rewards"),
        ({"reward": "silver"}, "silver"),
        ({"model": "cnn"}, 'model must be "table" or "mlp", got .cnn.'),
        (
            {"methods": ["ppo", "maxrl"]},
            r"different names from .*sapo.*, got ppo, maxrl; maxrl can .* 0 and 1.*verifiable",
        ),
        ({"methods": ["magic"]}, "got magic$"),
        ({"methods": ["ppo", "magic"]}, "magic"),
        ({"methods": []}, "best-of-n"),
        ({"methods": ["ppo", "ppo"]}, "different"),
        ({"labels": 0}, "labels"),
        ({"seeds": 0}, "seeds"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        run_chain(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


ALL = "--beta 0.5 --reward learned --methods ppo dpo --labels 300 --seeds 3 --seed 7"
OF_ALL = {"beta": 0.5, "reward": "learned", "methods": ["ppo", "dpo"], "labels": 300}


@pytest.mark.parametrize(
    ("words", "given"),
    [(ALL, OF_ALL | {"seeds": 3, "seed": 7})]
    + [(words, {}) for words in ("", "--methods all", "--methods all ppo", "--methods ppo all")],
)
def test_the_command_hands_its_arguments_on(words, given, monkeypatch, tmp_path, capsys):
    seen = {}
    monkeypatch.setattr(alignment, "run_chain", lambda out, **rest: seen.update(out=out, **rest))
    (tmp_path / "frontier.png").touch()
    assert main(["rlhf", "--out", str(tmp_path), *words.split()]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: frontier.png\n"
    seen.pop("say")("a stage")
    assert capsys.readouterr().out == "a stage\n"
    parameters = inspect.signature(run_chain).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "say"}
    assert seen == defaults | {"out": str(tmp_path), "progress": True} | given
    assert (*REINFORCED, "dpo", "ipo", "best-of-n") == METHODS
    documented = {"beta": 0.3, "reward": "gold", "labels": 3_000, "seeds": 2, "seed": 2}
    assert (documented | {"methods": METHODS}).items() <= defaults.items()


def test_a_command_that_fails_or_is_interrupted_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    assert main(["rlhf", "--out", str(tmp_path / "x"), "--methods", "magic"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("minirl: methods must be")
    assert error.count("\n") == 1

    def interrupted(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(alignment, "run_chain", interrupted)
    assert main(["rlhf", "--out", str(tmp_path)]) == 130
    kept = "finished runs are kept, and the same command continues from them"
    assert capsys.readouterr() == ("", f"minirl: interrupted; {kept}\n")


def texts(said):
    return re.sub(r"[\d.]+ s ", "", "\n".join(said))


def timeless(summary):
    summary = copy.deepcopy(summary)
    for numbers in summary["methods"].values():
        del numbers["seconds"]
    return summary


def test_a_chain_that_is_interrupted_goes_on_with_equal_results(chain, tmp_path, monkeypatch):
    """A real run: what is stored must give the same figures, bit for bit, as what is computed."""
    shutil.copytree(chain.out, tmp_path / "rlhf")
    folder, again = tmp_path / "rlhf", []
    files = ["frontier.png", "learning.png", "overoptimisation.png", "samples.md", "summary.json"]
    for name in [*files, "runs/ipo-seed5.npz"]:
        (folder / name).unlink()
    stored_at = {path.name: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert set(stored_at) == {"trpo-seed5.npz", "dpo-seed5.npz", "best-of-n-seed5.npz"}

    def counted(name, *arguments):
        again.append(name)
        return run_method(name, *arguments)

    monkeypatch.setattr(alignment, "run_method", counted)
    followed = chain.calls["overoptimise"][0].result
    monkeypatch.setattr(alignment, "overoptimise", lambda *arguments: followed)
    said = []
    summary = run_chain(folder, methods=CHOSEN, labels=500, seeds=1, seed=5, say=said.append)
    assert again == ["ipo"]
    assert texts(said) == texts([chain.texts])
    assert timeless(summary) == timeless(chain.summary)
    assert timeless(json.loads((folder / "summary.json").read_text())) == timeless(chain.summary)
    for name in ["trpo", "dpo", "best-of-n"]:
        assert summary["methods"][name] == chain.summary["methods"][name]  # seconds, too
        path = folder / "runs" / f"{name}-seed5.npz"
        assert path.stat().st_mtime_ns == stored_at[path.name]
    for name in files[:-1]:
        assert (folder / name).read_bytes() == (chain.out / name).read_bytes(), name


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_whatever_stops_a_chain_finished_methods_survive(error, seen, tmp_path):
    def say(text):
        if "dpo" in text:
            raise error

    arguments = {"methods": ["ppo", "dpo", "ipo"], "labels": 500, "seeds": 2, "seed": 5}
    with pytest.raises(error):
        run_chain(tmp_path, **arguments, say=say)
    assert names(seen) == ["ppo", "ppo", "dpo", "dpo"]
    summary = run_chain(tmp_path, **arguments, say=lambda text: None)
    assert names(seen) == ["ppo", "ppo", "dpo", "dpo", "ipo", "ipo"]
    assert list(summary["methods"]) == ["ppo", "dpo", "ipo"]


def test_runs_that_other_code_made_or_that_are_damaged_are_run_again(seen, tmp_path, monkeypatch):
    arguments = {"methods": ["ppo", "dpo"], "seeds": 1, "say": lambda text: None}
    run_chain(tmp_path, **arguments)
    (tmp_path / "runs" / "dpo-seed2.npz").write_bytes(b"")
    run_chain(tmp_path, **arguments)
    assert names(seen) == ["ppo", "dpo", "dpo"]
    monkeypatch.setattr(alignment, "source_hash", lambda: "other")
    run_chain(tmp_path, **arguments)
    assert names(seen) == ["ppo", "dpo", "dpo", "ppo", "dpo"]


def test_a_chain_that_fails_at_once_frees_its_folder(seen, tmp_path):
    def say(text):
        raise ValueError(text)

    with pytest.raises(ValueError, match="fine-tuning"):
        run_chain(tmp_path, methods=["ppo"], say=say)
    run_chain(tmp_path, methods=["dpo"], say=lambda text: None)
