"""docs/rlhf/claim-*.png: a small chart for each claim about RLHF that has stored numbers.

python docs/drawings/claims.py
"""

import json
import re
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
from style import (
    BLACK,
    BLUE,
    DOCS,
    GREEN,
    GREY,
    KNOWN_STYLES,
    LABELS,
    MARKERS,
    VERMILLION,
    line_with_intervals,
    rows_of,
    save,
)

SIZE = (7.6, 3.2)


def styled(name):
    color, line = KNOWN_STYLES[name]
    return {"color": color, "linestyle": line, "marker": MARKERS[name], "markersize": 6}


def too_large_an_update():
    """Score of PPO and TRPO on Pendulum over multiples of their step size."""
    groups = defaultdict(lambda: defaultdict(list))
    default = {"ppo": 1e-3, "trpo": 1e-2}
    for row in rows_of("learning_curves/sensitivity.csv"):
        if row["env"] == "Pendulum-v1":
            factor = float(row["value"]) / default[row["algorithm"]]
            groups[row["algorithm"]][factor].append(float(row["average_return"]))
    figure, axes = plt.subplots(figsize=SIZE)
    for name, label in (("ppo", "PPO, learning rate"), ("trpo", "TRPO, max_kl")):
        line_with_intervals(axes, groups[name], label=label, **styled(name))
    axes.set(xscale="log", xlabel="step size, as a multiple of the default (five seeds)")
    axes.set(ylabel="mean return over training")
    axes.set_xticks(
        [1 / 30, 0.1, 1 / 3, 1, 3, 10, 30], ["1/30", "1/10", "1/3", "1", "3", "10", "30"]
    )
    axes.minorticks_off()
    axes.legend(loc="lower center")
    save(figure, "rlhf/claim-update.png", "Pendulum: steps can be too small and too large")


def costly_trpo():
    """Gradients and CPU seconds for 100,000 CartPole steps."""
    last = {}
    for row in rows_of("learning_curves/cartpole.csv"):
        last[row["algorithm"], row["seed"]] = row
    figure, panels = plt.subplots(1, 2, figsize=SIZE, sharey=True)
    names = {"policy-gradient": "policy gradient", "ppo": "PPO", "trpo": "TRPO"}
    columns = (
        ("gradient_equivalents", "million gradients", 1e6),
        ("cpu_seconds", "CPU seconds", 1),
    )
    for axes, (column, label, unit) in zip(panels, columns, strict=True):
        for position, name in enumerate(names):
            values = [float(row[column]) / unit for key, row in last.items() if key[0] == name]
            axes.barh(position, np.median(values), color=KNOWN_STYLES[name][0], height=0.6)
            axes.text(np.median(values), position, f" {np.median(values):.1f}", va="center")
        axes.set(xlabel=f"{label} for 100,000 steps")
        axes.grid(axis="y", visible=False)
        axes.set_xlim(right=1.15 * axes.get_xlim()[1])
    panels[0].set_yticks(range(len(names)), names.values())
    save(figure, "rlhf/claim-trpo-cost.png", "CartPole: TRPO computes more, in about the same time")


def kl_over_all_actions():
    """The table of `python -m benchmarks.speed.kl_cost` on the page."""
    words = ["1,000", "8,000", "32,000", "128,000"]
    parts = {
        "logits, which both need": ([2.6, 21, 86, 348], GREY),
        "log-ratio of the sampled token": ([0.3, 3.4, 17, 96], BLUE),
        "exact KL over all tokens": ([0.4, 3.9, 19, 118], VERMILLION),
    }
    figure, axes = plt.subplots(figsize=SIZE)
    for shift, (label, (values, color)) in enumerate(parts.items()):
        axes.bar(np.arange(4) + 0.27 * (shift - 1), values, 0.25, color=color, label=label)
    axes.set(yscale="log", ylabel="milliseconds, log scale", xlabel="tokens in the vocabulary")
    axes.set_xticks(range(4), words)
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=10)
    title = "The exact KL costs about as much as one sampled log-ratio"
    save(figure, "rlhf/claim-kl-sum.png", title)


def clipping_and_learning_rate():
    """The KL of one CartPole update, notebook 4, section 4.5."""
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    figure, axes = plt.subplots(figsize=SIZE)
    for label, kls, color, line, marker in (
        ("neither", [0.1, 0.649, 1.807, 3.301, 4.222, 12.531, 48.337], GREY, "dotted", "^"),
        (
            "clipping 0.2",
            [0.006, 0.008, 0.011, 0.01, 0.007, 0.121, 29.876],
            VERMILLION,
            "solid",
            "o",
        ),
        (
            "KL penalty, beta 1",
            [0.011, 0.013, 0.014, 0.017, 0.007, 0.009, 0.114],
            BLUE,
            "dashed",
            "s",
        ),
    ):
        axes.loglog(
            rates, kls, color=color, linestyle=line, marker=marker, linewidth=2, label=label
        )
    axes.set(xlabel="learning rate", ylabel="KL of the update, nats")
    axes.legend(fontsize=10)
    title = "Clipping bounds the KL only at small learning rates"
    save(figure, "rlhf/claim-clip.png", title)


def kl_penalty():
    """Gold reward of the exact optimum of a learned reward, over 100 corpora."""
    columns = {"beta_1": "1", "beta_0.3": "0.3", "beta_0.1": "0.1", "end": "0.02"}
    models = {
        "hard": ("linear in courtesy", VERMILLION, "o", -0.1),
        "courtesy": ("features for each number of courtesies", BLUE, "s", 0.1),
    }
    rows = [row for row in rows_of("overoptimisation/optimum.csv") if row["labels"] == "3000"]
    figure, axes = plt.subplots(figsize=SIZE)
    for model, (label, color, marker, shift) in models.items():
        gold = np.array([[float(row[c]) for c in columns] for row in rows if row["model"] == model])
        low, middle, high = np.quantile(gold, [0.25, 0.5, 0.75], axis=0)
        axes.errorbar(
            np.arange(4) + shift,
            middle,
            yerr=[middle - low, high - middle],
            color=color,
            marker=marker,
            linewidth=2,
            capsize=3,
            label=f"reward model: {label}",
        )
    reference = np.median([float(row["reference"]) for row in rows])
    axes.axhline(reference, color=BLACK, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.text(-0.25, reference + 0.08, "reference", fontsize=10)
    axes.set_xticks(range(4), columns.values())
    axes.set(xlabel="beta: a smaller penalty to the right", ylabel="gold reward", ylim=(0.8, 4.3))
    axes.legend(fontsize=10, loc="lower left", bbox_to_anchor=(0, 0.25))
    title = "At a small penalty, the features of the reward model decide"
    save(figure, "rlhf/claim-kl-penalty.png", title)


def one_loop():
    """Fraction of the optimum of the six methods that sample, on six corpora with two seeds."""
    figure, axes = plt.subplots(figsize=SIZE)
    names = ["policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo"]
    for position, name in enumerate(names):
        scores = [
            float(row["fraction"])
            for row in rows_of("alignment_reach.csv")
            if (row["method"], row["settings"], row["beta"]) == (name, "preset", "0.3")
        ]
        heights = np.full(len(scores), position) + np.linspace(-0.25, 0.25, len(scores))
        look = {"markerfacecolor": "none", "markeredgecolor": KNOWN_STYLES[name][0]}
        axes.plot(scores, heights, MARKERS[name], **look)
    axes.axvline(1, color=BLACK)
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="fraction of the optimum (line: the optimum)", xlim=(0.975, 1.001))
    title = "The same loop with six algorithms ends within 1.6 % of the optimum"
    save(figure, "rlhf/claim-loop.png", title)


def information():
    """Bits of a demonstration and of a judgement, as notebook 7 prints them in 7.13."""
    cells = json.loads((DOCS.parent / "notebooks" / "07_preferences.ipynb").read_text())["cells"]
    printed = "".join(
        text
        for cell in cells
        for output in cell.get("outputs", [])
        for text in output.get("text", [])
    )
    lines = {
        "one demonstration, in all": r"surprisal of a demonstration: +([\d.]+)",
        "one judgement, in all": r"a label, about the order of its pair: +([\d.]+)",
        "one demonstration, the right digit": r"a demonstration, about the right digit: ([\d.]+)",
        "one judgement, the right digit": r"a label, about the right digit: +([\d.]+)",
    }
    bits = [float(re.search(pattern, printed).group(1)) for pattern in lines.values()]
    figure, axes = plt.subplots(figsize=SIZE)
    bars = axes.barh(range(4), bits, color=[GREY, BLACK, GREY, BLACK], height=0.6)
    axes.bar_label(bars, [f"{number:.2f}" for number in bits], padding=4)
    axes.set_yticks(range(4), list(lines))
    axes.invert_yaxis()
    axes.set(xlabel="bits", xlim=(0, 4.3))
    title = "A demonstration carries more bits than a judgement"
    save(figure, "rlhf/claim-information.png", title)


def fractions(method, key, **fixed):
    """From a column's value to the fractions of the optimum of a method's runs."""
    groups = defaultdict(list)
    for row in rows_of("dpo_vs_ppo.csv"):
        asked = {"method": method, "repeat": "0", **fixed}
        if all(row[name] == value for name, value in asked.items()):
            groups[float(row[key])].append(float(row["fraction"]))
    return groups


def by_median_sentences(method):
    """As `fractions`, for runs with the same number of pairs at their median of sentences."""
    runs = defaultdict(list)
    for row in rows_of("dpo_vs_ppo.csv"):
        if row["method"] == method and row["repeat"] == "0":
            runs[row["pairs"]].append((float(row["sentences"]), float(row["fraction"])))
    return {np.median([n for n, _ in seeds]): [f for _, f in seeds] for seeds in runs.values()}


def reward_model():
    """DPO and PPO on a reward model, from the same pairs with one judgement each."""
    figure, axes = plt.subplots(figsize=SIZE)
    dpo = {"color": BLACK, "linestyle": "dotted", "marker": "<", "label": "DPO, full table"}
    line_with_intervals(axes, fractions("DPO, hard, stopped", "pairs"), **dpo)
    ppo = styled("ppo") | {"label": "PPO on a reward model of 21 features"}
    line_with_intervals(axes, fractions("PPO, reward model", "pairs"), **ppo)
    axes.set(xscale="log", xlabel="pairs with one judgement each, log scale")
    axes.set(ylabel="fraction of the optimum")
    axes.set_xticks(
        [300, 1000, 3000, 10_000, 30_000], ["300", "1,000", "3,000", "10,000", "30,000"]
    )
    axes.minorticks_off()
    axes.legend(fontsize=10, loc="lower right")
    title = "With few pairs 21 features are better, with many pairs a full table"
    save(figure, "rlhf/claim-reward-model.png", title)


def hyperparameters():
    """DPO with three learning rates and three numbers of steps."""
    figure, axes = plt.subplots(figsize=SIZE)
    looks = (("0.03", BLUE, "s"), ("0.1", BLACK, "D"), ("0.3", VERMILLION, "o"))
    for rate, color, marker in looks:
        groups = fractions("DPO, hard, rates", "steps", learning_rate=rate)
        line_with_intervals(axes, groups, color=color, marker=marker, label=f"learning rate {rate}")
    axes.set(xlabel="steps, log scale", ylabel="fraction of the optimum", xscale="log")
    axes.set_xticks([75, 150, 600], ["75", "150", "600"])
    axes.minorticks_off()
    axes.legend(fontsize=10, loc="lower left")
    title = "DPO at one beta: learning rate and steps decide the result"
    save(figure, "rlhf/claim-hyperparameters.png", title)


def stable_and_cheap():
    """Fraction of the optimum against the sentences that were sampled."""
    figure, axes = plt.subplots(figsize=SIZE)
    for method, label, color, line, marker in (
        ("DPO, soft", "DPO, the annotator's probabilities", BLACK, "solid", MARKERS["dpo"]),
        ("TRPO, gold", "TRPO, the gold reward", *KNOWN_STYLES["trpo"], MARKERS["trpo"]),
        ("PPO, gold", "PPO, the gold reward", *KNOWN_STYLES["ppo"], MARKERS["ppo"]),
        ("DPO, hard, stopped", "DPO, one judgement per pair", BLACK, "dotted", "<"),
    ):
        groups = fractions(method, "sentences")
        if method.startswith("DPO"):  # the number of sentences differs between seeds
            groups = by_median_sentences(method)
        axes_style = {"color": color, "linestyle": line, "marker": marker, "label": label}
        line_with_intervals(axes, groups, **axes_style)
    axes.set(xscale="log", xlabel="sentences sampled, log scale", ylabel="fraction of the optimum")
    axes.legend(fontsize=10, loc="lower right")
    title = "DPO is cheaper in sentences only if its labels are probabilities"
    save(figure, "rlhf/claim-cheaper.png", title)


def verifiable(measurement):
    """The stored numbers of a measurement: (setting, point, quantity) -> one per corpus."""
    found = defaultdict(list)
    for row in rows_of("verifiable_claims.csv"):
        if row["measurement"] == measurement:
            key = row["setting"], row["point"], row["quantity"]
            found[key].append(float(row["value"]))
    return {key: np.array(values) for key, values in found.items()}


def with_range(values):
    """Median, and its distances to the smallest and to the largest."""
    middle = np.median(values)
    return middle, [[middle - min(values)], [max(values) - middle]]


def difficulty():
    """Share of each of four prompts in the length of the expected update."""
    stored, prompts = verifiable("difficulty"), "1234"
    rates = [np.median(stored["RLOO", prompt, "success"]) for prompt in prompts]
    methods = {"RLOO": (GREY, ""), "GRPO": (VERMILLION, "//"), "MaxRL": (BLUE, "..")}
    figure, axes = plt.subplots(figsize=SIZE)
    for shift, (name, (color, hatch)) in enumerate(methods.items()):
        for position, prompt in enumerate(prompts):
            middle, error = with_range(stored[name, prompt, "share"])
            axes.bar(
                position + 0.27 * (shift - 1),
                middle,
                0.25,
                yerr=error,
                capsize=3,
                color=color,
                hatch=hatch,
                edgecolor="white",
                label=name if position == 0 else None,
            )
    axes.set_xticks(range(4), [f"right in {rate:.1%}" for rate in rates])
    axes.set(ylabel="share of the update's length")
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=10)
    title = "GRPO's longest update is still that of the prompt near one half"
    save(figure, "rlhf/claim-difficulty.png", title)


def answer_lengths():
    """Length of right and wrong answers along GRPO's exact expected update."""
    stored = verifiable("length")
    looks = {
        "mean over each response": (VERMILLION, "solid", "o", 0.06),
        "sum over tokens": (BLUE, "dashed", "s", -0.06),
    }
    figure, panels = plt.subplots(1, 2, figsize=SIZE, sharey=True)
    points = ["reference", "0.9", "0.99"]
    for axes, verdict in zip(panels, ("right", "wrong"), strict=True):
        for setting, (color, line, marker, shift) in looks.items():
            pairs = [with_range(stored[setting, point, verdict]) for point in points]
            axes.errorbar(
                np.arange(3) + shift,
                [middle for middle, _ in pairs],
                yerr=np.hstack([error for _, error in pairs]),
                color=color,
                linestyle=line,
                marker=marker,
                capsize=3,
                label=setting,
            )
        axes.set_xticks(range(3), ["at first", "0.9", "0.99"])
        axes.set(xlabel=f"mean success rate: {verdict} answers")
    panels[0].set(ylabel="mean number of tokens")
    panels[1].legend(fontsize=10, loc="upper right")
    title = "A mean over each response: wrong answers longer, right ones shorter"
    save(figure, "rlhf/claim-length.png", title)


def stale_samples():
    """Direction of the expected update from samples of an older policy."""
    stored, kls = verifiable("stale"), ["0", "0.1", "0.3", "0.6"]
    looks = {
        "sequence ratio R": (BLACK, "solid", "o"),
        "none": (GREY, "dotted", "^"),
        "token ratios": (GREEN, "dashdot", "D"),
        "GSPO's R^(1/length)": (BLUE, "dashed", "s"),
        "GSPO, clipped": (VERMILLION, "solid", "v"),
    }
    figure, axes = plt.subplots(figsize=SIZE)
    for setting, (color, line, marker) in looks.items():
        pairs = [with_range(stored[setting, kl, "cosine"]) for kl in kls]
        axes.errorbar(
            [float(kl) for kl in kls],
            [middle for middle, _ in pairs],
            yerr=np.hstack([error for _, error in pairs]),
            color=color,
            linestyle=line,
            marker=marker,
            capsize=3,
            label=setting,
        )
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set(xlabel="KL from the sampling policy, nats", ylabel="cosine with the gradient")
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    title = "Only the ratio of the whole response keeps the direction"
    save(figure, "rlhf/claim-gspo.png", title)


def higher_clip():
    """Entropy of whole responses for four pairs of clipping bounds."""
    stored, points = verifiable("clipping"), ["reference", "0.7", "0.9", "end"]
    looks = {
        "1 - 0.2, 1 + 0.2": (BLACK, "o"),
        "1 - 0.2, 1 + 0.28": (VERMILLION, "s"),
        "1 - 0.2, 1 + 1": (BLUE, "^"),
        "0, 1 + 0.2": (GREY, "v"),
    }
    figure, axes = plt.subplots(figsize=SIZE)
    for shift, (setting, (color, marker)) in enumerate(looks.items()):
        pairs = [with_range(stored[setting, point, "entropy"]) for point in points]
        axes.errorbar(
            np.arange(4) + 0.14 * (shift - 1.5),
            [middle for middle, _ in pairs],
            yerr=np.hstack([error for _, error in pairs]),
            color=color,
            linestyle="none",
            marker=marker,
            capsize=3,
            label=f"ratio in [{setting}]",
        )
    labels = ["reference", "success rate 0.7", "success rate 0.9", "end of training"]
    axes.set_xticks(range(4), labels)
    axes.set(ylabel="entropy of a response, nats", ylim=(0, None))
    axes.legend(fontsize=10, loc="lower left")
    title = "An upper bound of 1.28 in place of 1.2 does not keep the entropy"
    save(figure, "rlhf/claim-clip-higher.png", title)


def passes():
    """pass@1 and pass@64 before and after training, of a table and of a network."""
    stored = verifiable("pass@k")
    names = {"rloo": "RLOO", "grpo-paper": "GRPO", "dapo": "DAPO", "maxrl": "MaxRL"}
    names["pass-at-k"] = "pass@4"
    markers = dict(zip(names, "osD^v", strict=True))
    colors = {"rloo": GREY, "grpo-paper": VERMILLION, "dapo": GREEN, "maxrl": BLUE}
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 3.6), sharex=True, sharey=True)
    for axes, kind in zip(panels, ("table", "network"), strict=True):
        for method in ("reference", *names):
            rates = np.array([stored[f"{kind}, {method}", x, "success"] for x in "1234"])
            often = (1 - (1 - rates) ** 64).mean(axis=0)
            look = {"marker": "*", "color": BLACK, "markersize": 9}
            if method != "reference":
                look = {"marker": markers[method], "color": colors.get(method, BLACK)}
                look["markerfacecolor"] = "none"
            label = names.get(method, "reference")
            axes.plot(rates.mean(axis=0), often, linestyle="none", label=label, **look)
        axes.set(xlabel=f"pass@1 of a {kind}")
    panels[0].set(ylabel="pass@64")
    panels[0].legend(fontsize=9, loc="lower right")
    title = "pass@64 falls only if the prompts share parameters"
    save(figure, "rlhf/claim-pass.png", title)


if __name__ == "__main__":
    too_large_an_update()
    costly_trpo()
    kl_over_all_actions()
    clipping_and_learning_rate()
    kl_penalty()
    one_loop()
    information()
    reward_model()
    hyperparameters()
    stable_and_cheap()
    difficulty()
    answer_lengths()
    stale_samples()
    higher_clip()
    passes()
