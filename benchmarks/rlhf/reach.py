"""How close does each method come to the optimum of J? Five betas, six corpora, two seeds.

    python -m benchmarks.rlhf.reach            (about 20 minutes of CPU time)
    python -m benchmarks.rlhf.reach --table    (the tables of docs/results/rlhf.md)
    python -m benchmarks.rlhf.reach --figure docs/results/rlhf.png

Every method runs at each beta with its preset, which was chosen at beta = 0.3 on other corpora.
Where that is not enough, it also runs with settings that were chosen on corpora 0 and 1 (`SET`).
benchmarks/results/alignment_reach.csv has one row per run:

method, settings     the method; "preset", or what was changed
beta, corpus, seed   of J; of the demonstrations; of pairs, judgements, minibatches and rollouts
sentences, labels    number of sentences sampled; number of sentences scored by the gold reward, or
                     of labelled pairs. For best-of-n both are n, per answer; for exact optima 0
cpu_seconds          of learning, without the pairs; 0 where nothing learns
fraction, gold, kl   (J - J_ref) / (J* - J_ref); gold reward and KL in nats, per sentence, exact

A fraction of 0 is the reference. The figure also reads results/dpo_vs_ppo_compute.csv.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike
from scipy.special import expit

from benchmarks import study
from benchmarks.rlhf.case import Case, Labelled
from benchmarks.rlhf.dpo_vs_ppo import COMPUTE, COMPUTES, NAMES, fraction, median, of_budgets
from benchmarks.study import Row
from minirl import rlhf
from minirl.exact import sequences
from minirl.experiments import figures
from minirl.experiments.alignment import chain
from minirl.experiments.alignment.chain import BEST_OF, DPO_STEPS, REPORTED_BEST_OF, SENTENCES
from minirl.experiments.alignment.figures import MARKERS, MINUS
from minirl.experiments.statistics import with_interval
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.presets import preset
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.language_model import log_table
from minirl.support.machine import one_core

BETAS, CORPORA, SEEDS = (0.03, 0.1, 0.3, 1.0, 3.0), range(100, 106), (0, 1)
TUNED_AT = 0.3
UPPER_SHOWN = -9.0, 0.0, 0.9, 0.99, 0.999, 0.9999
LOWER_SHOWN = 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999
STUDY = study.Study(
    study.RESULTS / "alignment_reach.csv",
    ("method", "settings", "beta", "corpus", "seed"),
    ("sentences", "labels", "cpu_seconds", "fraction", "gold", "kl"),
)
Key = tuple[str, str, str, int, int]

# Preferences: method -> loss, pairs, kind of labels, steps.
PREFERENCES = {
    "DPO, 3,000 probabilities": ("dpo", 3_000, "soft", DPO_STEPS["gold"]),
    "DPO, 3,000 judgements": ("dpo", 3_000, "hard", DPO_STEPS["learned"]),
    "DPO, 30,000 judgements": ("dpo", 30_000, "hard", DPO_STEPS["gold"]),
    "IPO, 3,000 probabilities": ("ipo", 3_000, "soft", DPO_STEPS["gold"]),
    "IPO, 3,000 judgements": ("ipo", 3_000, "hard", DPO_STEPS["learned"]),
}
IPO_OPTIMUM = "IPO, its exact optimum"
# The methods of `make rlhf` that sample while they learn.
SAMPLING = tuple(name for name in chain.METHODS if name in SENTENCES)
METHODS = (*SAMPLING, *PREFERENCES, IPO_OPTIMUM, "best-of-n")
# Where the preset falls short: (method, beta) -> changes, which were chosen on corpora 0 and 1.
SET: dict[tuple[str, float], dict[str, float]] = {
    **{(name, 1.0): {"learning_rate": 9.0} for name in ("policy-gradient", "rloo")},
    **{(name, 3.0): {"learning_rate": 3.0} for name in ("policy-gradient", "rloo")},
    ("natural-gradient", 3.0): {"step_size": 0.1},
    ("trpo", 3.0): {"max_kl": 0.001},
    **{(name, 3.0): {"annealed_from": 0.02} for name in ("ppo", "grpo")},
    **{("DPO, 3,000 probabilities", beta): {"steps": 2_400} for beta in (0.03, 0.1)},
    ("DPO, 3,000 judgements", 0.03): {"steps": 600},
    ("DPO, 3,000 judgements", 0.1): {"steps": 300},
    ("DPO, 3,000 judgements", 1.0): {"steps": 50},
    ("DPO, 3,000 judgements", 3.0): {"steps": 25},
    **{("IPO, 3,000 probabilities", beta): {"tau_divisor": 7} for beta in BETAS if beta > 0.03},
    **{("IPO, 3,000 judgements", beta): {"tau_divisor": 7} for beta in BETAS if beta > 0.1},
    **{("best-of-n", beta): {"n": 64} for beta in (0.03, 0.1)},
    ("best-of-n", 1.0): {"n": 4},
    ("best-of-n", 3.0): {"n": 2},
}
# Changes that show what limits IPO at one beta: its tau, its steps, its rate, or its pairs.
IPO_TAU_DIVISORS = (1, 2, 4, 7, 10)
IPO_CHANGES: list[dict[str, float]] = [
    {"steps": 150},
    {"steps": 1_200},
    {"annealed_from": 0.03},
    {"annealed_from": 0.3},
    {"pairs": 30_000},
    {"tau_divisor": 2},
    {"tau_divisor": 4},
    {"tau_divisor": 10},
    {"tau_divisor": 7, "steps": 150},
    {"tau_divisor": 7, "pairs": 30_000},
]


class Outcome(NamedTuple):
    """A distribution over responses (X, N), and what the method used to find it."""

    log_probs: np.ndarray
    sentences: int = 0
    labels: int = 0
    cpu_seconds: float = 0.0


class Setup(Case):
    """One beta on one corpus with one seed: the reference, labelled pairs, all methods."""

    def __init__(self, beta: float, corpus: int, seed: int) -> None:
        super().__init__(np.random.default_rng(corpus), beta)
        self.corpus, self.seed = corpus, seed
        self.pairs: dict[int, Labelled] = {}

    def labelled(self, pairs: int) -> Labelled:
        """Labelled pairs, which are the same for all methods."""
        if pairs not in self.pairs:
            rng = np.random.default_rng([self.corpus, self.seed, pairs])
            self.pairs[pairs] = self.sample_labelled(pairs, rng)
        return self.pairs[pairs]

    def learn(self, method: str, changes: dict[str, float]) -> Outcome:
        """The distribution that a method reaches with these changes of its preset."""
        log_reference = self.objective.reference_log_probs
        if method == "best-of-n":
            n = int(changes.get("n", REPORTED_BEST_OF))
            return Outcome(sequences.best_of_n(log_reference, self.gold, n), n, n)
        if method == IPO_OPTIMUM:
            tau = self.objective.beta / changes.get("tau_divisor", 1)
            log_probs = log_reference + win_rates(log_reference, self.gold) / tau
            normaliser = np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
            return Outcome(log_probs - normaliser)
        learn = self.learn_by_sampling if method in SENTENCES else self.learn_from_pairs
        return learn(method, dict(changes))

    def learn_by_sampling(self, method: str, changes: dict[str, Any]) -> Outcome:
        """Reinforcement learning from the gold reward."""
        if "annealed_from" in changes:
            changes["learning_rate"] = LinearSchedule(changes.pop("annealed_from"))
        chosen = preset(ENVIRONMENT, method)
        chosen = replace(chosen, algorithm=replace(chosen.algorithm, **changes))
        seed, count = 1_000 * self.seed + self.corpus, SENTENCES[method]
        learn = partial(self.align, chosen, sentences=count, seed=seed)
        return self.timed(lambda: learn().policy, count, count)

    def learn_from_pairs(self, method: str, changes: dict[str, float]) -> Outcome:
        """DPO or IPO on labelled pairs."""
        loss, pairs, kind, steps = PREFERENCES[method]
        preferences, sentences = self.labelled(int(changes.get("pairs", pairs)))
        labelled = preferences[kind]
        algorithm = rlhf.DPO(
            beta=self.objective.beta / changes.get("tau_divisor", 1),
            loss=loss,
            steps=int(changes.get("steps", steps)),
            learning_rate=LinearSchedule(changes.get("annealed_from", 0.1)),
        )
        rng = np.random.default_rng([self.corpus, self.seed, 1])
        learn = partial(self.fit, algorithm, labelled, rng)
        return self.timed(learn, sentences, len(labelled))

    def timed(self, learn: Callable[[], Policy], sentences: int, labels: int) -> Outcome:
        """The exact distribution of the policy that is learned, with what learning used."""
        began = time.process_time()
        policy = learn()
        seconds = time.process_time() - began
        log_probs = sequences.response_log_probs(log_table(self.task, policy))
        return Outcome(log_probs, sentences, labels, seconds)

    def values(self, outcome: Outcome) -> list[object]:
        """The values of a row."""
        objective = self.objective
        kl = sequences.kl(outcome.log_probs, objective.reference_log_probs)
        gold = sequences.expected_reward(outcome.log_probs, self.gold)
        fraction = objective.fraction_reached(gold - objective.beta * kl)
        numbers = f"{outcome.cpu_seconds:.3f}", *(f"{x:.4f}" for x in (fraction, gold, kl))
        return [outcome.sentences, outcome.labels, *numbers]


def win_rates(log_reference: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """q(x, y) = sum_y' ref(y' | x) sigma(r(x, y) - r(x, y')), shape (X, N).

    This is the probability that y is preferred to a response of the reference.

    >>> win_rates(np.log([[0.25, 0.75]]), np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    rates = np.empty(rewards.shape)
    for prompt, row in enumerate(rewards.round(12)):
        values, which = np.unique(row, return_inverse=True)
        shares = np.bincount(which, np.exp(log_reference[prompt]))
        rates[prompt] = (expit(values[:, None] - values) @ shares)[which]
    return rates


def in_words(changes: dict[str, float]) -> str:
    """Changes of a preset in words, the entry of the column "settings".

    >>> in_words({"tau_divisor": 7, "steps": 2400})
    'tau = beta / 7, 2,400 steps'
    """
    words = {
        "learning_rate": "learning rate {:g}",
        "annealed_from": "learning rate {:g}, annealed",
        "step_size": "step size {:g}",
        "max_kl": "max_kl {:g}",
        "steps": "{:,} steps",
        "tau_divisor": "tau = beta / {:g}",
        "pairs": "{:,} pairs",
        "n": "n = {:g}",
    }
    return ", ".join(words[name].format(value) for name, value in changes.items()) or "preset"


def runs(beta: float, seed: int) -> list[tuple[str, dict[str, float]]]:
    """All methods at a beta, with the changes of their presets; IPO's changes on one seed only."""
    listed: list[tuple[str, dict[str, float]]] = []
    for method in METHODS:
        listed.append((method, {}))
        if (method, beta) in SET:
            listed.append((method, SET[method, beta]))
    listed.append(("DPO, 3,000 judgements", {"steps": 600}))
    listed += [("best-of-n", {"n": n}) for n in BEST_OF if n != REPORTED_BEST_OF]
    listed += [(IPO_OPTIMUM, {"tau_divisor": divisor}) for divisor in IPO_TAU_DIVISORS[1:]]
    if (beta, seed) == (TUNED_AT, SEEDS[0]):
        listed += [("IPO, 3,000 probabilities", changes) for changes in IPO_CHANGES]
    return [run for number, run in enumerate(listed) if run not in listed[:number]]


def wanted() -> dict[Key, dict[str, float]]:
    """The key of every run, and the changes of its preset; runs of one setup are adjacent."""
    return {
        (method, in_words(changes), f"{beta:g}", corpus, seed): changes
        for beta in sorted(BETAS, key=lambda beta: abs(np.log(beta / TUNED_AT)))
        for corpus in CORPORA
        for seed in SEEDS
        for method, changes in runs(beta, seed)
    }


setup_of = lru_cache(maxsize=1)(Setup)


def run(item: Key) -> list[object]:
    """Learn and evaluate: the values of a row."""
    method, _, beta, corpus, seed = item
    with one_core():
        setup = setup_of(float(beta), corpus, seed)
        return setup.values(setup.learn(method, wanted()[item]))


class Summary(NamedTuple):
    """Interquartile mean over corpora, its 95 % interval, and the smallest of the runs."""

    middle: float
    low: float
    high: float
    smallest: float

    def __str__(self) -> str:
        form = ".1f" if self.low < -1 else ".3f"
        return with_interval(self.middle, self.low, self.high, form)


def summary(rows: Sequence[Row], method: str, settings: str, beta: float) -> Summary:
    """The summary of a method; seeds are averaged first, because they share a corpus."""
    runs = matching(rows, method, settings, beta)
    by_corpus = study.grouped(runs, "corpus").values()
    means = [float(np.mean(study.numbers(seeds, "fraction"))) for seeds in by_corpus]
    return Summary(*study.iqm(means), min(study.numbers(runs, "fraction")))


def matching(rows: Sequence[Row], method: str, settings: str, beta: float) -> list[Row]:
    """The rows of a method with these settings at a beta."""
    key = method, settings, f"{beta:g}"
    return [row for row in rows if (row["method"], row["settings"], row["beta"]) == key]


def at_betas(rows: Sequence[Row], method: str, set_for_beta: bool = False) -> dict[float, Summary]:
    """The summaries of a method by beta, with its preset or with the settings set for the beta."""
    settings = dict.fromkeys(BETAS, "preset")
    if set_for_beta:
        settings = {beta: in_words(SET[method, beta]) for beta in BETAS if (method, beta) in SET}
    return {beta: summary(rows, method, words, beta) for beta, words in settings.items()}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables of docs/results/rlhf.md that these rows make, by title, and the optima."""
    header = ["method", *(f"beta = {beta:g}" for beta in BETAS)]
    middle, smallest, changed = [], [], []
    for name in METHODS:
        presets = at_betas(rows, name)
        middle.append([name, *presets.values()])
        smallest.append([name, *(f"{preset.smallest:.3f}" for preset in presets.values())])
        for beta, tuned in at_betas(rows, name, set_for_beta=True).items():
            words = in_words(SET[name, beta])
            tuned_cells = tuned, f"{tuned.smallest:.3f}"
            changed.append([name, f"{beta:g}", words, presets[beta], *tuned_cells])
    set_header = ["method", "beta", "settings", "preset", "set", "smallest, set"]
    return {
        "The optimum": optima(),
        "Presets: fraction of the optimum": study.markdown(header, middle),
        "Presets: the smallest of the runs": study.markdown(header, smallest),
        "Settings for the beta": study.markdown(set_header, changed),
        f"What a run used, at beta = {TUNED_AT:g} with the preset (medians)": used(rows),
        f"IPO at beta = {TUNED_AT:g}": ipo(rows),
    }


def optima() -> str:
    """The optimum and its gain over the reference, means over the corpora, exact."""
    lines = []
    for beta in BETAS:
        objectives = [Setup(beta, corpus, SEEDS[0]).objective for corpus in CORPORA]
        best = [objective.value(objective.optimal_policy) for objective in objectives]
        gains = [objective.optimum - objective.reference_value for objective in objectives]
        columns = [value.reward for value in best], [value.kl for value in best], gains
        lines.append([f"{beta:g}", *(f"{np.mean(column):.2f}" for column in columns)])
    return study.markdown(["beta", "gold reward of the optimum", "its KL, nats", "to gain"], lines)


def used(rows: Sequence[Row]) -> str:
    """Sentences, labels and CPU seconds of the presets."""
    columns = {"sentences": ",.0f", "labels": ",.0f", "cpu_seconds": ".2f"}
    lines = []
    for name in METHODS:
        if name != IPO_OPTIMUM:
            runs = matching(rows, name, "preset", TUNED_AT)
            cells = (f"{median(runs, column):{form}}" for column, form in columns.items())
            lines.append([name, *cells])
    return study.markdown(["method", "sentences", "labels", "CPU seconds"], lines)


def ipo(rows: Sequence[Row]) -> str:
    """The fractions that IPO reaches at one beta, beside the exact optimum of its own objective."""
    name, lines = "IPO, 3,000 probabilities", []
    changes_by_tau = sorted(
        [{}, SET[name, TUNED_AT], *IPO_CHANGES], key=lambda changes: changes.get("tau_divisor", 1)
    )
    for changes in changes_by_tau:
        divisor = changes.get("tau_divisor", 1)
        others = {key: value for key, value in changes.items() if key != "tau_divisor"}
        tau = in_words({"tau_divisor": divisor} if divisor != 1 else {})
        trained = summary(rows, name, in_words(changes), TUNED_AT)
        optimum = summary(rows, IPO_OPTIMUM, tau, TUNED_AT)
        lines.append([f"beta / {divisor:g}", in_words(others), trained, optimum])
    return study.markdown(["tau", "settings", "trained", "exact optimum of its objective"], lines)


# The upper panels: title -> methods.
GROUPS = {
    "Sampling while learning": SAMPLING,
    "From pairs": tuple(PREFERENCES),
    "Search": ("best-of-n",),
}
# method -> color, marker, line: DPO is black and IPO grey, as in every figure.
PREFERENCE_STYLES = {
    "DPO, 3,000 probabilities": (figures.BLACK, "P", figures.SOLID),
    "DPO, 3,000 judgements": (figures.BLACK, "<", figures.DOTTED),
    "DPO, 30,000 judgements": (figures.BLACK, ">", figures.DASHED),
    "IPO, 3,000 probabilities": (figures.GREY, "X", figures.SOLID),
    "IPO, 3,000 judgements": (figures.GREY, "d", figures.DOTTED),
}
HOLLOW = {"markerfacecolor": "white"}
# The lower panels: method -> color, marker, line.
BUDGET_STYLES = {
    "PPO, preset": (figures.VERMILLION, "D", figures.SOLID),
    "PPO, set": (figures.VERMILLION, "D", figures.DOTTED),
    "TRPO, preset": (figures.BLUE, "^", figures.SOLID),
    "TRPO, set": (figures.BLUE, "^", figures.DOTTED),
    "DPO, probabilities": (figures.BLACK, "P", figures.SOLID),
    "DPO, set": (figures.BLACK, "P", figures.DOTTED),
    "DPO, judgements": (figures.BLACK, "<", figures.DASHED),
    "policy gradient, gold": (figures.ORANGE, "o", "none"),
}


def place(fractions: ArrayLike) -> np.ndarray:
    """Positions of fractions on an axis where 0.9, 0.99 and 0.999 are equally far apart."""
    return -np.log10(1 - np.asarray(fractions))


def fraction_axis(ax: Axes, shown: Sequence[float], lowest: float, highest: float) -> None:
    """Ticks and limits of such an axis."""
    ax.set_yticks(place(shown), [f"{fraction:g}".replace("-", MINUS) for fraction in shown])
    ax.set_ylim(place(lowest), place(highest))


def curve(ax: Axes, x: Sequence[float], points: Sequence[Summary], **style: Any) -> None:
    """Interquartile means joined, with their intervals."""
    middle, low, high = place([point[:3] for point in points]).T
    error = np.maximum([middle - low, high - middle], 0)
    ax.errorbar(x, middle, error, capsize=2, linewidth=1.4, **style)


# Part of the file's name: title, and the panels' groups or budgets.
BETA_FIGURES = {
    "": ("Methods that sample while they learn, at each beta", ("Sampling while learning",)),
    "-pairs": ("Methods that learn from pairs or search, at each beta", ("From pairs", "Search")),
}
BUDGET_FIGURES = {
    "-sentences": ("Which method needs the fewest sentences? (beta = 0.3)", ("sentences",)),
    "-compute": ("Which method needs the least computation? (beta = 0.3)", tuple(COMPUTES)),
}
PANEL = 6.0, 5.2  # inches


def figure(rows: Sequence[Row], compute: Sequence[Row], path: Path) -> None:
    """Four figures of fractions: against beta twice, against sentences, against compute.

    Their names are that of `path` with a part appended to its stem.
    """
    for part, (title, groups) in BETA_FIGURES.items():
        drawn, panels = panels_of(len(groups), title)
        for ax, group in zip(panels, groups, strict=True):
            draw_group(ax, group, rows)
        drawn.savefig(path.with_stem(path.stem + part), dpi=120)
    for part, (title, columns) in BUDGET_FIGURES.items():
        drawn, panels = panels_of(len(columns), title)
        for ax, column in zip(panels, columns, strict=True):
            draw_budget(ax, column, compute)
        drawn.savefig(path.with_stem(path.stem + part), dpi=120)


def panels_of(count: int, title: str) -> tuple[Figure, Sequence[Axes]]:
    """A figure with this number of panels side by side, and its title."""
    width = max(count * PANEL[0], 8.0)
    drawn = Figure(figsize=(width, PANEL[1]), layout="constrained")
    panels = list(np.atleast_1d(drawn.subplots(1, count)))
    drawn.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    panels[0].set_ylabel("fraction of the optimum")
    return drawn, panels


def draw_group(ax: Axes, title: str, rows: Sequence[Row]) -> None:
    """The fractions of the methods of one group against beta."""
    label_y = ax.get_ylabel()
    study.clean(ax, title, "beta (reward per nat), log scale", label_y)
    group = GROUPS[title]
    for number, name in enumerate(group):
        aside = 1.12 ** (number - (len(group) - 1) / 2)  # side by side
        if name in PREFERENCE_STYLES:
            color, marker, line = PREFERENCE_STYLES[name]
        else:
            color, line = figures.KNOWN_STYLES[name]
            marker = MARKERS[name][0]
        size = 10 if marker == "." else 5  # a dot is drawn half as large
        style = {"color": color, "marker": marker, "markersize": size}
        label = figures.LABELS.get(name, name)
        if name == "best-of-n":
            label = f"{name}, n = {REPORTED_BEST_OF}"
        for summaries, look in (
            (at_betas(rows, name), {"linestyle": line, "label": label}),
            (at_betas(rows, name, set_for_beta=True), {"linestyle": "none", **HOLLOW}),
        ):
            if summaries:
                x = [beta * aside for beta in summaries]
                curve(ax, x, list(summaries.values()), **style, **look)
    ax.set_xscale("log")
    ax.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
    ax.minorticks_off()
    fraction_axis(ax, UPPER_SHOWN, -30.0, 0.99995)
    ax.plot([], [], "o", color=figures.GREY, label="with settings for this beta", **HOLLOW)
    ax.legend(fontsize=10, loc="lower left" if group == SAMPLING else "upper right")


def draw_budget(ax: Axes, column: str, compute: Sequence[Row]) -> None:
    """The fractions of PPO, TRPO and DPO against one kind of budget."""
    study.clean(ax, "", f"{NAMES.get(column, column)}, log scale", ax.get_ylabel())
    for name, (color, marker, line) in BUDGET_STYLES.items():
        # As in the tables: one number of sentences for all set settings of DPO.
        if name == ("DPO, set" if column == "sentences" else "DPO, judgements"):
            continue
        budgets = of_budgets(compute, name)
        style = {"color": color, "marker": marker, "markersize": 6, "linestyle": line}
        hollow = HOLLOW if name.endswith(", set") else {}
        at = [median(group, column) for group in budgets]
        points = [Summary(*fraction(group), 0.0) for group in budgets]
        label = name.replace(", set", ", settings for the budget")
        curve(ax, at, points, label=label, **style, **hollow)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    fraction_axis(ax, LOWER_SHOWN, 0.6, 0.99995)
    ax.legend(fontsize=10, loc="upper left")


if __name__ == "__main__":
    study.main(
        __doc__,
        STUDY,
        run,
        wanted,
        lambda: study.titled(tables(STUDY.rows())),
        draw=lambda path: figure(STUDY.rows(), COMPUTE.rows(), path),
    )
