"""The whole alignment chain, run, judged against the exact optimum, and drawn.

Stages, in order: supervised fine-tuning, preferences, reward model, learning (each method from the
same reference), over-optimisation. Whatever a method learned from, it is judged by what the human
wants: J = E[gold reward] - beta KL(pi || pi_ref), exact over all responses.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minirl.envs.token_tasks import arithmetic
from minirl.exact import sequences
from minirl.experiments.runs import RUNS, claimed_folder, load_run
from minirl.policy import Policy
from minirl.presets import preset
from minirl.rlhf.align import ENVIRONMENT, Objective, align
from minirl.rlhf.dpo import DPO
from minirl.rlhf.language_model import log_table
from minirl.rlhf.preferences import Annotator, Pairs, Preferences, sample_pairs
from minirl.rlhf.reward_model import (
    RewardModel,
    accuracy,
    bag_of_words,
    bayes_ceiling,
    calibration,
    fit_reward_model,
)
from minirl.rlhf.sft import FineTuned, fine_tune, sample_demonstrations
from minirl.support.interrupts import hold_interrupts
from minirl.support.serialization import save_arrays, source_hash, versions, write_text
from minirl.support.validation import require_count, require_positive, require_seed
from minirl.training import Measure

# What each method that samples while it learns is allowed to sample.
SENTENCES = {
    "policy-gradient": 51_200,
    "natural-gradient": 61_440,
    "trpo": 61_440,
    "ppo": 51_200,
    "rloo": 51_200,
    "grpo": 51_200,
}
METHODS = (*SENTENCES, "dpo", "ipo", "best-of-n")
FORMAT = "minirl-method-run-1"  # of the files of finished runs
DEMONSTRATIONS = 2_000
HELD_OUT_PAIRS = 5_000
# Labels drawn once are noise to a table that can learn each of them by heart: stop early.
DPO_STEPS = {"gold": 600, "learned": 150}
MEASUREMENTS = 50  # points of a learning curve
BEST_OF = (2, 4, 8, 16, 64)
REPORTED_BEST_OF = 16
OVEROPTIMISATION_BETAS = np.geomspace(20.0, 0.02, 80)
OVEROPTIMISATION_BEST_OF = 2 ** np.arange(13)
FRONTIER_BETAS = np.geomspace(100.0, 0.03, 300)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that the learning methods start from.

    Parameters
    ----------
    tuned : FineTuned
        Its policy is the reference.
    pairs : Pairs
    soft, hard : Preferences
        The same pairs with the annotator's probabilities, and with one judgement each.
    model : RewardModel
        Fitted to the hard labels, centred on the reference.
    held_out : Preferences
        Fresh pairs with soft labels.
    objective : Objective
        J with the gold rewards.
    learned : ndarray (X, N)
        The model's rewards.
    """

    tuned: FineTuned
    pairs: Pairs
    soft: Preferences
    hard: Preferences
    model: RewardModel
    held_out: Preferences
    objective: Objective
    learned: np.ndarray


@dataclass(frozen=True, eq=False)
class MethodRun:
    """What one method with one seed came to.

    Parameters
    ----------
    log_probs : ndarray (X, N)
        Of every response.
    sentences : int
        Sampled to get there; for best-of-n, for one answer.
    curve : ndarray (2, U)
        Sentences sampled before each measurement, and J then.
    seconds : float
        CPU time, measurements included.
    """

    log_probs: np.ndarray
    sentences: int
    curve: np.ndarray
    seconds: float


# ---------------------------------------------------------------- the stages


def prepare(*, beta: float, labels: int, seed: int) -> Prepared:
    """Supervised fine-tuning, preferences and the reward model of the arithmetic task.

    Raises
    ------
    ValueError
        If beta is outside the range in which the exact numbers mean something (`Objective`).
    """
    task = arithmetic()
    streams = np.random.SeedSequence(seed).spawn(3)
    corpus_rng, label_rng, held_out_rng = (np.random.default_rng(stream) for stream in streams)
    tuned = fine_tune(task, sample_demonstrations(task, DEMONSTRATIONS, corpus_rng))
    annotator, gold = Annotator(), task.utilities
    pairs = sample_pairs(task, tuned.policy, labels, label_rng)
    hard = annotator.hard(pairs, gold, label_rng)
    objective = Objective(task, tuned.policy, gold, beta)
    model = fit_reward_model(bag_of_words(task), hard).centred(objective.reference_log_probs)
    sequences.require_price("beta", beta, model.rewards())
    held_out = sample_pairs(task, tuned.policy, HELD_OUT_PAIRS, held_out_rng)
    return Prepared(
        tuned=tuned,
        pairs=pairs,
        soft=annotator.soft(pairs, gold),
        hard=hard,
        model=model,
        held_out=annotator.soft(held_out, gold),
        objective=objective,
        learned=model.rewards(),
    )


def run_method(name: str, prepared: Prepared, reward: str, seed: int) -> MethodRun:
    """One method from the reference, with the gold or the learned reward."""
    began = time.process_time()
    if name == "best-of-n":
        log_probs, sentences, curve = _search(prepared, reward)
    else:
        learn = _reinforce if name in SENTENCES else _prefer
        policy, sentences, curve = learn(name, prepared, reward, seed)
        log_probs = sequences.response_log_probs(log_table(prepared.objective.task, policy))
    return MethodRun(log_probs, sentences, curve, time.process_time() - began)


def _stored_run(
    folder: Path, name: str, prepared: Prepared, arguments: dict[str, Any], seed: int
) -> MethodRun:
    """`run_method`, or the run that an earlier call has stored in `folder`."""
    identity = {"method": name, "seed": seed, "chain": arguments, "source": source_hash()}
    path = folder / RUNS / f"{name}-seed{seed}.npz"
    stored = None
    with contextlib.suppress(ValueError):  # made by other code: it is run again
        stored = load_run(path, FORMAT, identity)
    if stored is not None:
        sentences, seconds = int(stored["sentences"]), float(stored["seconds"])
        return MethodRun(stored["log_probs"], sentences, stored["curve"], seconds)
    run = run_method(name, prepared, arguments["reward"], seed)
    with hold_interrupts():
        path.parent.mkdir(exist_ok=True)
        arrays = {field: np.array(value) for field, value in vars(run).items()}
        save_arrays(path, FORMAT, identity, arrays)
    return run


def _kl_and_gold(log_probs: np.ndarray, objective: Objective) -> tuple[float, float]:
    """KL to the reference and gold reward of a distribution over responses (X, N)."""
    return (
        sequences.kl(log_probs, objective.reference_log_probs),
        sequences.expected_reward(log_probs, objective.rewards),
    )


def _rewards(prepared: Prepared, reward: str) -> np.ndarray:
    return prepared.objective.rewards if reward == "gold" else prepared.learned


def _search(prepared: Prepared, reward: str) -> tuple[np.ndarray, int, np.ndarray]:
    """Best-of-n: log-probabilities, sentences for one answer, no curve."""
    log_probs = sequences.best_of_n(
        prepared.objective.reference_log_probs, _rewards(prepared, reward), REPORTED_BEST_OF
    )
    return log_probs, REPORTED_BEST_OF, np.zeros((2, 0))


def _reinforce(
    name: str, prepared: Prepared, reward: str, seed: int
) -> tuple[Policy, int, np.ndarray]:
    """A method that samples while it learns: policy, sentences, curve."""
    objective = prepared.objective
    updates = SENTENCES[name] // preset(ENVIRONMENT, name).settings.num_envs
    result = align(
        objective.task,
        objective.reference,
        _rewards(prepared, reward),
        name,
        sentences=SENTENCES[name],
        beta=objective.beta,
        seed=seed,
        measure=_sparsely(objective.measure, updates),
    )
    columns = result.history.columns()
    after, measured = columns["episodes"], columns["exact_objective"]
    before, sentences = np.concatenate([[0], after[:-1]]), int(after[-1])
    final = objective.value(result.policy).objective
    kept = ~np.isnan(measured)
    curve = np.array([[*before[kept], sentences], [*measured[kept], final]])
    return result.policy, sentences, curve


def _prefer(
    name: str, prepared: Prepared, reward: str, seed: int
) -> tuple[Policy, int, np.ndarray]:
    """A method that samples its pairs beforehand: policy, sentences, curve."""
    objective, steps = prepared.objective, DPO_STEPS[reward]
    found = DPO(beta=objective.beta, loss=name, steps=steps).fit(  # type: ignore[arg-type]
        objective.task,
        objective.reference,
        prepared.soft if reward == "gold" else prepared.hard,
        np.random.default_rng(seed),
        measure=_sparsely(objective.measure, steps),
    )
    sentences = 2 * (len(prepared.soft) + prepared.pairs.identical)
    measured = [row["exact_objective"] for row in found.rows if "exact_objective" in row]
    measured.append(objective.value(found.policy).objective)
    return found.policy, sentences, np.array([[sentences] * len(measured), measured])


def _sparsely(measure: Measure, calls: int) -> Measure:
    """`measure`, but only some `MEASUREMENTS` times in so many calls."""
    every, counter = max(1, calls // MEASUREMENTS), itertools.count()
    return lambda policy: measure(policy) if next(counter) % every == 0 else {}


@dataclass(frozen=True, eq=False)
class Overoptimisation:
    """Three ways to follow the learned reward ever further from the reference.

    Parameters
    ----------
    paths : dict
        Name -> "kl" (nats), "gold" and "learned" reward, from the reference on. The learned reward
        is shifted to begin where the gold one does, which no preference can tell apart.
    hacked : dict
        Name -> log-probabilities (X, N) of the responses at the end of two of the paths.
    """

    paths: dict[str, dict[str, np.ndarray]]
    hacked: dict[str, np.ndarray]


def overoptimise(prepared: Prepared, seed: int) -> Overoptimisation:
    """Follow the reward model by the exact optimum, by best-of-n and by PPO without a penalty."""
    objective, learned = prepared.objective, prepared.learned
    task, reference_log_probs = objective.task, objective.reference_log_probs

    def point(log_probs: np.ndarray) -> tuple[float, float, float]:
        learned_reward = sequences.expected_reward(log_probs, learned)
        return *_kl_and_gold(log_probs, objective), learned_reward

    def optimum(beta: float) -> np.ndarray:
        log_policy, _ = sequences.soft_optimal_policy(objective.log_reference, learned, beta)
        return sequences.response_log_probs(log_policy)

    def measure(policy: Policy) -> dict[str, float]:
        log_probs = sequences.response_log_probs(log_table(task, policy))
        names = "exact_reference_kl", "exact_gold_reward", "exact_reward"
        return dict(zip(names, point(log_probs), strict=True))

    ppo = align(
        task,
        objective.reference,
        learned,
        "ppo",
        sentences=SENTENCES["ppo"],
        beta=None,
        seed=seed,
        measure=measure,
    )
    start = point(reference_log_probs)
    found = {
        "learned optimum": [
            start,
            *(point(optimum(beta)) for beta in OVEROPTIMISATION_BETAS),
        ],
        "best-of-n": [
            point(sequences.best_of_n(reference_log_probs, learned, int(n)))
            for n in OVEROPTIMISATION_BEST_OF
        ],
        "PPO": [
            (row["exact_reference_kl"], row["exact_gold_reward"], row["exact_reward"])
            for row in [*ppo.history.rows, measure(ppo.policy)]
        ],
    }
    paths = {}
    for name, points in found.items():
        kl, gold, learned_reward = np.array(points).T
        shift = start[1] - start[2]
        paths[name] = {"kl": kl, "gold": gold, "learned": learned_reward + shift}
    smallest = OVEROPTIMISATION_BETAS[-1]
    return Overoptimisation(
        paths=paths,
        hacked={
            "PPO on the learned reward without a KL penalty": sequences.response_log_probs(
                log_table(task, ppo.policy)
            ),
            f"the optimum of the learned reward at beta = {smallest:g}": optimum(smallest),
        },
    )


# ---------------------------------------------------------------- what is told


def describe_preparation(prepared: Prepared, rng: np.random.Generator) -> str:
    """What fine-tuning, labelling and the reward model came to, with examples."""
    tuned, pairs, objective = prepared.tuned, prepared.pairs, prepared.objective
    task, gold = objective.task, objective.rewards
    lines = [
        f"1. Supervised fine-tuning: {DEMONSTRATIONS:,} demonstrations, {tuned.blocks} packed "
        "blocks",
        f"    {tuned.lost_context:.1%} of the response tokens lost their prompt; perplexity "
        f"{tuned.perplexity:.2f} (lowest possible {tuned.lowest_perplexity:.2f})",
        f"    the reference earns {objective.reference_value:.3f} (gold); samples:",
        *(
            f"      {task.prompts[prompt]}  " + "   ".join(_quoted(task.text(r)) for r in responses)
            for prompt, responses in enumerate(_draw(objective.reference_log_probs, rng, 2))
        ),
        f"2. Preferences: {len(prepared.hard):,} pairs, {pairs.identical} with the same answer "
        f"twice dropped, {pairs.tied(gold).sum()} tied in utility kept",
    ]
    for row in range(min(4, len(prepared.hard))):
        pair = prepared.hard.rows(slice(row, row + 1))
        prompt = int(pair.prompts[0])
        won, lost = (task.text(int(answer[0])) for answer in (pair.chosen, pair.rejected))
        probability = prepared.soft.labels[row]
        if pair.labels[0] == 0:
            probability = 1 - probability
        lines.append(
            f"      {task.prompts[prompt]}  {_quoted(won)} > {_quoted(lost)}   "
            f"(so judged with probability {probability:.0%})"
        )
    judged = judge_reward_model(prepared)
    lines += [
        f"3. Reward model: {len(prepared.model.weights)} weights, accuracy on fresh pairs "
        f"{judged['accuracy']:.1%} (Bayes ceiling {judged['bayes_ceiling']:.1%}), "
        f"calibration error {judged['calibration_error']:.3f}",
        f"4. Learning at beta = {objective.beta:g}: J of the reference "
        f"{objective.reference_value:.3f}, J* {objective.optimum:.3f}",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return f'"{text}"' if text else "(nothing)"


def _draw(log_probs: np.ndarray, rng: np.random.Generator, per_prompt: int) -> np.ndarray:
    """Responses (X, per_prompt) drawn from a distribution over all of them."""
    probs = np.exp(log_probs)
    probs /= probs.sum(axis=1, keepdims=True)
    return np.array([rng.choice(len(row), size=per_prompt, p=row) for row in probs])


def judge_reward_model(prepared: Prepared) -> dict[str, float]:
    """Accuracy, its ceiling and the calibration error on fresh pairs."""
    predicted = prepared.model.probabilities(prepared.held_out)
    labels = prepared.held_out.labels
    return {
        "accuracy": accuracy(predicted, labels),
        "bayes_ceiling": bayes_ceiling(labels),
        "calibration_error": calibration(predicted, labels).error,
    }


def judge(run: MethodRun, prepared: Prepared) -> dict[str, float]:
    """A run as `summary.json` tells it; rewards and KL exact, per sentence."""
    objective = prepared.objective
    kl, gold = _kl_and_gold(run.log_probs, objective)
    return {
        "fraction_of_optimum": objective.fraction_reached(gold - objective.beta * kl),
        "gold_reward": gold,
        "learned_reward": sequences.expected_reward(run.log_probs, prepared.learned),
        "kl_to_reference": kl,
        "sentences": run.sentences,
        "seconds": run.seconds,
    }


def samples_page(
    sections: dict[str, np.ndarray], prepared: Prepared, rng: np.random.Generator
) -> str:
    """Markdown: for each title and distribution (X, N), four sampled texts a prompt."""
    objective, learned = prepared.objective, prepared.learned
    task, gold = objective.task, objective.rewards
    lines = [
        "# Texts before and after",
        "",
        "Sampled, not chosen; `...` marks an answer that was cut at its longest. Gold is what the "
        "human wants; learned is the reward model's opinion, 0 on average under the reference. "
        f"beta = {objective.beta:g}.",
    ]
    for title, log_probs in sections.items():
        # Adding 0 makes no -0.00 of a mean just below it.
        means = [
            round(sequences.expected_reward(log_probs, rewards), 2) + 0.0
            for rewards in (gold, learned)
        ]
        lines += ["", f"## {title}", ""]
        lines += ["On average, over all answers: gold {:.2f}, learned {:.2f}.".format(*means), ""]
        lines += ["| prompt | text | gold | learned |", "|---|---|---|---|"]
        for prompt, responses in enumerate(_draw(log_probs, rng, 4)):
            lines += [
                f"| {task.prompts[prompt]} | {task.text(r) or '(nothing)'} | "
                f"{gold[prompt, r]:.2f} | {learned[prompt, r]:.2f} |"
                for r in responses
            ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the whole chain


def run_chain(
    out: Path | str,
    *,
    beta: float = 0.3,
    reward: str = "gold",
    methods: Sequence[str] = METHODS,
    labels: int = 3_000,
    seeds: int = 2,
    seed: int = 2,
    say: Callable[[str], None] = print,
    progress: bool = False,
) -> dict[str, Any]:
    """Run all stages on "What is 2x4?", report each as it ends, write figures, texts, a summary.

    Finished runs are stored in `out/runs`. After an interruption, the same call goes on from them,
    with the results and the text of an uninterrupted one; `seconds` are those of the first time.

    Parameters
    ----------
    out : path
        Folder for frontier.png, learning.png (unless best-of-n is alone: it does not learn),
        overoptimisation.png, samples.md and summary.json.
    beta : float
        Of the KL penalty, in units of reward per nat; about 1e-7 to 1e6, see `Objective`.
    reward : {"gold", "learned"}
        What the methods learn from: the gold utilities (DPO: soft labels), or the reward model
        (DPO: the hard labels that the model was fitted to). They are judged by gold.
    methods : sequence of str
        Of `METHODS`.
    labels : int
        Preference pairs.
    seeds : int
        Runs of each method; corpus and preferences are those of `seed` throughout.
    seed : int
        Of everything.
    say : callable
        Receives each stage's text.

    Returns
    -------
    dict : the content of summary.json; per method the means over seeds.

    Raises
    ------
    ValueError
        For an argument out of its range, or a folder that can't be used.
    """
    require_positive("beta", beta)
    for name, count in (("labels", labels), ("seeds", seeds)):
        require_count(name, count)
    require_seed(seed)
    if reward not in ("gold", "learned"):
        raise ValueError(f'reward must be "gold" or "learned", got {reward!r}')
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods or len(set(methods)) < len(methods):
        raise ValueError(
            f"methods must be different ones of {', '.join(METHODS)}, got {', '.join(methods)}"
        )
    arguments = {
        "beta": float(beta),
        "reward": reward,
        "methods": list(methods),
        "labels": int(labels),
        "seeds": int(seeds),
        "seed": int(seed),
    }
    bar = tqdm(total=2 + seeds * len(methods), unit="stage", disable=not progress)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bar)
        bar.set_description("fine-tuning, preferences, reward model")
        prepared = prepare(beta=beta, labels=labels, seed=seed)
        folder = stack.enter_context(claimed_folder(out, {"kind": "rlhf", **arguments}))
        text_rng = np.random.default_rng(seed)
        say(describe_preparation(prepared, text_rng))
        bar.update()
        runs: dict[str, list[MethodRun]] = {name: [] for name in methods}
        for name in methods:
            for own_seed in range(seed, seed + seeds):
                bar.set_description(f"{name}, seed {own_seed}")
                runs[name].append(_stored_run(folder, name, prepared, arguments, own_seed))
                bar.update()
            say(_told(name, runs[name], prepared, reward))
        say(_told_texts(runs, prepared, text_rng))
        bar.set_description("over-optimisation")
        followed = overoptimise(prepared, seed)
        say(_told_overoptimisation(followed))
        bar.update()
        summary = _summary(arguments, runs, followed, prepared)
        _draw_figures(folder, runs, followed, prepared, reward)
        sections = {
            "before: the reference": prepared.objective.reference_log_probs,
            **{f"after: {name}": found[0].log_probs for name, found in runs.items()},
            **{f"hacked: {name}": log_probs for name, log_probs in followed.hacked.items()},
        }
        write_text(folder / "samples.md", samples_page(sections, prepared, text_rng))
        write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _told(name: str, runs: Sequence[MethodRun], prepared: Prepared, reward: str) -> str:
    judged = [judge(run, prepared) for run in runs]
    mean = {key: np.mean([found[key] for found in judged]) for key in judged[0]}
    shown = f"best of {REPORTED_BEST_OF}" if name == "best-of-n" else name
    given = ""
    if name == "best-of-n":
        given = " for each answer"
    elif name not in SENTENCES:
        labels = "the exact probabilities" if reward == "gold" else "one judgement"
        given = f" beforehand, with {labels} of each pair"
    return (
        f"    {shown:18}{mean['fraction_of_optimum']:6.1%} of the optimum   gold "
        f"{mean['gold_reward']:.3f}   KL {mean['kl_to_reference']:.2f} nats   "
        f"{mean['seconds']:.1f} s   {mean['sentences']:>6,.0f} sentences{given}"
    )


def _told_texts(
    runs: dict[str, list[MethodRun]], prepared: Prepared, rng: np.random.Generator
) -> str:
    """Three answers to one prompt, of the reference and of each method's first run."""
    objective = prepared.objective
    prompt = objective.task.prompt("What is 2x4?")
    distributions = {"before": objective.reference_log_probs}
    distributions |= {name: found[0].log_probs for name, found in runs.items()}
    lines = ["    answers to What is 2x4?"]
    for name, log_probs in distributions.items():
        (answers,) = _draw(log_probs[[prompt]], rng, 3)
        texts = "   ".join(_quoted(objective.task.text(answer)) for answer in answers)
        lines.append(f"      {name:18}{texts}")
    return "\n".join(lines)


def _told_overoptimisation(followed: Overoptimisation) -> str:
    lines = [
        "5. Over-optimisation: following the reward model ever further (its reward shifted to "
        "begin at the gold one)"
    ]
    for name, path in followed.paths.items():
        gold, learned = path["gold"], path["learned"]
        lines.append(
            f"    {name:18}gold {gold[0]:.2f} -> {gold.max():.2f} -> {gold[-1]:.2f} while learned "
            f"{learned[0]:.2f} -> {learned[-1]:.2f}"
        )
    return "\n".join(lines)


def _summary(
    arguments: dict[str, Any],
    runs: dict[str, list[MethodRun]],
    followed: Overoptimisation,
    prepared: Prepared,
) -> dict[str, Any]:
    objective = prepared.objective
    methods = {}
    for name, found in runs.items():
        judged = [judge(run, prepared) for run in found]
        methods[name] = {
            **{key: float(np.mean([run[key] for run in judged])) for key in judged[0]},
            "sentences": round(np.mean([run["sentences"] for run in judged])),
            "fraction_of_optimum_per_seed": [run["fraction_of_optimum"] for run in judged],
        }
    return {
        "j_ref": objective.reference_value,
        "j_star": objective.optimum,
        **arguments,
        "methods": methods,
        "best_of_n": REPORTED_BEST_OF,
        "reward_model": judge_reward_model(prepared),
        "overoptimisation": {
            name: {
                "highest_gold_reward": float(path["gold"].max()),
                "last_gold_reward": float(path["gold"][-1]),
                "last_learned_reward": float(path["learned"][-1] - path["learned"][0]),
            }
            for name, path in followed.paths.items()
        },
        "versions": versions(),
    }


def _draw_figures(
    folder: Path,
    runs: dict[str, list[MethodRun]],
    followed: Overoptimisation,
    prepared: Prepared,
    reward: str,
) -> None:
    from minirl.experiments.alignment import (
        figures as alignment_figures,  # matplotlib is loaded only to draw
    )

    objective = prepared.objective
    reference_log_probs = objective.reference_log_probs
    rewards = _rewards(prepared, reward)
    points = {
        name: [_kl_and_gold(run.log_probs, objective) for run in found]
        for name, found in runs.items()
    }
    labels = {}
    if "best-of-n" in runs:
        points["best-of-n"] = [
            _kl_and_gold(sequences.best_of_n(reference_log_probs, rewards, n), objective)
            for n in BEST_OF
        ]
        labels["best-of-n"] = [f"n = {n}" for n in BEST_OF]
    optimum = objective.value(objective.optimal_policy)
    trained_on = f"trained on the {reward} reward"
    alignment_figures.plot_frontier(
        sequences.reward_kl_frontier(objective.log_reference, objective.rewards, FRONTIER_BETAS),
        points,
        labels=labels,
        reference=(0.0, objective.reference_value),
        optimum=(optimum.kl, optimum.reward),
        beta=objective.beta,
        title=f"What each method pays in KL for its reward ({trained_on})",
        path=folder / "frontier.png",
    )
    curves: dict[str, Any] = {
        name: [tuple(run.curve) for run in found]
        for name, found in runs.items()
        if name != "best-of-n"
    }
    if curves:
        alignment_figures.plot_learning(
            {name: found for name, found in curves.items() if name in SENTENCES},
            offline={name: found for name, found in curves.items() if name not in SENTENCES},
            reference_objective=objective.reference_value,
            optimal_objective=objective.optimum,
            title=f"Exact J = E[gold reward] \N{MINUS SIGN} {objective.beta:g} KL, {trained_on}",
            path=folder / "learning.png",
        )
    alignment_figures.plot_overoptimisation(
        followed.paths,
        title=f"A reward model of {len(prepared.hard):,} labels, followed too far",
        path=folder / "overoptimisation.png",
    )
