"""The output of the alignment chain: printed texts, summary, samples and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirl.exact import sequences
from minirl.experiments.alignment.chain import (
    BEST_OF,
    DEMONSTRATIONS,
    FRONTIER_BETAS,
    REPORTED_BEST_OF,
    SENTENCES,
    MethodRun,
    Overoptimisation,
    Prepared,
    kl_and_gold,
    training_rewards,
)
from minirl.rlhf.reward_model import (
    accuracy,
    bayes_ceiling,
    calibration,
)
from minirl.support.serialization import versions


def describe_preparation(prepared: Prepared, rng: np.random.Generator) -> str:
    """The results of fine-tuning, labelling and the reward model, with examples."""
    tuned, pairs, objective = prepared.tuned, prepared.pairs, prepared.objective
    task, gold = objective.task, objective.rewards
    lines = [
        f"1. Supervised fine-tuning: {DEMONSTRATIONS:,} demonstrations, {tuned.blocks} packed "
        "blocks",
        f"    {tuned.lost_context:.1%} of the response tokens lost their prompt; perplexity "
        f"{tuned.perplexity:.2f} (lowest possible {tuned.lowest_perplexity:.2f})",
        f"    mean gold reward of the reference {objective.reference_value:.3f}; samples:",
        *(
            f"      {task.prompts[prompt]}  " + "   ".join(_quoted(task.text(r)) for r in responses)
            for prompt, responses in enumerate(_draw(objective.reference_log_probs, rng, 2))
        ),
        f"2. Preferences: {len(prepared.hard):,} pairs, of which {pairs.tied(gold).sum()} have "
        f"equal utilities; {pairs.identical} pairs of identical answers were dropped",
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
            f"(probability of this judgement {probability:.0%})"
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
    """The entry of a run in `summary.json`; rewards and KL are exact and per sentence."""
    objective = prepared.objective
    kl, gold = kl_and_gold(run.log_probs, objective)
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
    """Markdown: for each title and distribution (X, N), four sampled texts per prompt."""
    objective, learned = prepared.objective, prepared.learned
    task, gold = objective.task, objective.rewards
    lines = [
        "# Texts before and after",
        "",
        "All texts are random samples. `...` marks an answer that was cut at the largest length. "
        "Gold is the human's utility. Learned is the reward of the reward model; its mean under "
        f"the reference is 0. beta = {objective.beta:g}.",
    ]
    for title, log_probs in sections.items():
        # Adding 0 turns -0.00 into 0.00.
        means = [
            round(sequences.expected_reward(log_probs, rewards), 2) + 0.0
            for rewards in (gold, learned)
        ]
        lines += ["", f"## {title}", ""]
        lines += ["Mean over all answers: gold {:.2f}, learned {:.2f}.".format(*means), ""]
        lines += ["| prompt | text | gold | learned |", "|---|---|---|---|"]
        for prompt, responses in enumerate(_draw(log_probs, rng, 4)):
            lines += [
                f"| {task.prompts[prompt]} | {task.text(r) or '(nothing)'} | "
                f"{gold[prompt, r]:.2f} | {learned[prompt, r]:.2f} |"
                for r in responses
            ]
    return "\n".join(lines) + "\n"


def describe_method(name: str, runs: Sequence[MethodRun], prepared: Prepared, reward: str) -> str:
    """One line: means over a method's runs, and the sentences that a run needed."""
    judged = [judge(run, prepared) for run in runs]
    mean = {key: np.mean([judgement[key] for judgement in judged]) for key in judged[0]}
    shown = f"best of {REPORTED_BEST_OF}" if name == "best-of-n" else name
    labels_used = ""
    if name == "best-of-n":
        labels_used = " per answer"
    elif name not in SENTENCES:
        labels = "exact probabilities" if reward == "gold" else "one judgement per pair"
        labels_used = f" sampled beforehand, labelled with {labels}"
    return (
        f"    {shown:18}{mean['fraction_of_optimum']:6.1%} of the optimum   gold "
        f"{mean['gold_reward']:.3f}   KL {mean['kl_to_reference']:.2f} nats   "
        f"{mean['seconds']:.1f} s   {mean['sentences']:>6,.0f} sentences{labels_used}"
    )


def describe_answers(
    runs: dict[str, list[MethodRun]], prepared: Prepared, rng: np.random.Generator
) -> str:
    """Three answers to one prompt, of the reference and of each method's first run."""
    objective = prepared.objective
    prompt = objective.task.prompt("What is 2x4?")
    distributions = {"before": objective.reference_log_probs}
    distributions |= {name: seeds[0].log_probs for name, seeds in runs.items()}
    lines = ['    answers to "What is 2x4?"']
    for name, log_probs in distributions.items():
        (answers,) = _draw(log_probs[[prompt]], rng, 3)
        texts = "   ".join(_quoted(objective.task.text(answer)) for answer in answers)
        lines.append(f"      {name:18}{texts}")
    return "\n".join(lines)


def describe_overoptimisation(followed: Overoptimisation) -> str:
    """One line per path: the gold reward at its start, peak and end, and the learned reward."""
    lines = [
        "5. Over-optimisation: the learned reward, shifted to equal gold at the reference, is "
        "increased further and further"
    ]
    for name, path in followed.paths.items():
        gold, learned = path["gold"], path["learned"]
        lines.append(
            f"    {name:18}gold {gold[0]:.2f} -> {gold.max():.2f} (peak) -> {gold[-1]:.2f}, "
            f"learned {learned[0]:.2f} -> {learned[-1]:.2f}"
        )
    return "\n".join(lines)


def summarize(
    arguments: dict[str, Any],
    runs: dict[str, list[MethodRun]],
    followed: Overoptimisation,
    prepared: Prepared,
) -> dict[str, Any]:
    """The content of `summary.json`; the numbers of a method are means over its seeds."""
    objective = prepared.objective
    methods = {}
    for name, seeds in runs.items():
        judged = [judge(run, prepared) for run in seeds]
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


def draw_figures(
    folder: Path,
    runs: dict[str, list[MethodRun]],
    followed: Overoptimisation,
    prepared: Prepared,
    reward: str,
) -> None:
    """Draw frontier.png, learning.png (if a method learned) and overoptimisation.png."""
    # Imported here because Matplotlib is loaded only to draw.
    from minirl.experiments.alignment import figures as alignment_figures

    objective = prepared.objective
    reference_log_probs = objective.reference_log_probs
    rewards = training_rewards(prepared, reward)
    points = {
        name: [kl_and_gold(run.log_probs, objective) for run in seeds]
        for name, seeds in runs.items()
    }
    labels = {}
    if "best-of-n" in runs:
        points["best-of-n"] = [
            kl_and_gold(sequences.best_of_n(reference_log_probs, rewards, n), objective)
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
        title=f"Reward and KL of each method, {trained_on}",
        path=folder / "frontier.png",
    )
    curves: dict[str, Any] = {
        name: [run.curve for run in seeds] for name, seeds in runs.items() if name != "best-of-n"
    }
    if curves:
        alignment_figures.plot_learning(
            {name: seeds for name, seeds in curves.items() if name in SENTENCES},
            offline={name: seeds for name, seeds in curves.items() if name not in SENTENCES},
            reference_objective=objective.reference_value,
            optimal_objective=objective.optimum,
            title=f"Exact J = E[gold reward] \N{MINUS SIGN} {objective.beta:g} KL, {trained_on}",
            path=folder / "learning.png",
        )
    alignment_figures.plot_overoptimisation(
        followed.paths,
        title=f"Over-optimisation of a reward model with {len(prepared.hard):,} labels",
        path=folder / "overoptimisation.png",
    )
