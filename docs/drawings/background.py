"""docs/*/background-*.png: the picture under "Background" of each algorithm's page.

python docs/drawings/background.py
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from scipy.special import expit, softmax
from style import BLACK, BLUE, DOCS, GREEN, GREY, INK, VERMILLION, save

REWARDS = np.array([1.0, 0.0, 0.6])  # of a bandit with three actions; the third logit is 0
START = np.array([-1.4, 0.9])
SPAN = np.linspace(-2.6, 2.6, 161)


def probabilities(theta):
    """Softmax of (theta_1, theta_2, 0) along the last axis."""
    return softmax(np.concatenate([theta, np.zeros((*theta.shape[:-1], 1))], axis=-1), axis=-1)


def grid():
    """All points of the plane of theta, shape (161, 161, 2)."""
    return np.stack(np.meshgrid(SPAN, SPAN), axis=-1)


def kl_from_start(theta):
    old = probabilities(START)
    return (old * (np.log(old) - np.log(probabilities(theta)))).sum(axis=-1)


def arrow(axes, start, step, color, width=2.5, **style):
    axes.annotate(
        "",
        start + step,
        start,
        arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": width, **style},
    )


def policy_gradient():
    """Gradients of single samples and their mean, without and with a baseline."""
    probs = probabilities(START)
    scores = (np.eye(3) - probs)[:, :2]  # grad log pi(a), for each action
    value = probs @ REWARDS
    figure, panels = plt.subplots(1, 2, figsize=(9.2, 4.4), sharey=True)
    titles = ("the score times the reward", "the score times (reward - baseline)")
    for axes, baseline, title in zip(panels, (0.0, value), titles, strict=True):
        levels = probabilities(grid()) @ REWARDS
        axes.contour(SPAN, SPAN, levels, levels=9, colors=GREY, linewidths=0.7, alpha=0.6)
        for action, score in enumerate(scores):
            step = 1.8 * (REWARDS[action] - baseline) * score
            arrow(axes, START, step, BLUE, 1.4)
            if np.linalg.norm(step) > 0.45:
                text = f"action {action + 1}: {probs[action]:.0%}"
                axes.text(*(START + 1.12 * step), text, color=BLUE, fontsize=10, ha="center")
        mean = 1.8 * (probs * (REWARDS - baseline)) @ scores
        arrow(axes, START, mean, VERMILLION, 3)
        axes.set(title=title, xlabel="$\\theta_1$", xlim=(-2.4, 1.2), ylim=(-0.7, 1.9))
        axes.grid(visible=False)
    panels[0].set_ylabel("$\\theta_2$")
    panels[0].plot([], [], color=BLUE, label="one sampled action")
    panels[0].plot([], [], color=VERMILLION, linewidth=3, label="their mean: the gradient of J")
    panels[0].legend(fontsize=10, loc="upper left")
    title = "A baseline changes the samples, but not their mean"
    save(figure, "algorithms/background-policy-gradient.png", title)


def advantages():
    """Weights of future TD errors in an advantage."""
    figure, axes = plt.subplots(figsize=(7.6, 3.4))
    steps = np.arange(60)
    for lam, color, line in (
        (0.0, VERMILLION, "dotted"),
        (0.8, GREEN, "dashdot"),
        (0.95, BLUE, "dashed"),
        (1.0, BLACK, "solid"),
    ):
        weights = (0.99 * lam) ** steps
        axes.plot(steps, weights, color=color, linestyle=line, linewidth=2.4)
        place = {0.0: (1.5, 0.03), 0.8: (6, 0.27), 0.95: (17, 0.39), 1.0: (36, 0.74)}[lam]
        axes.text(*place, f"$\\lambda$ = {lam:g}", color=color)
    axes.set(xlabel="steps after the action", ylabel="weight of the TD error", ylim=(-0.03, 1.05))
    title = "A larger lambda includes more of the future (discount 0.99)"
    save(figure, "algorithms/background-advantages.png", title)


def natural_gradient():
    """Gaussian policies before and after the same step of the mean."""
    figure, panels = plt.subplots(1, 2, figsize=(9.2, 3.4), sharex=True)
    x = np.linspace(-4, 5, 400)
    for axes, std in zip(panels, (1.5, 0.25), strict=True):
        for mean, color, line, label in (
            (0.0, BLUE, "dashed", "before"),
            (0.5, VERMILLION, "solid", "after"),
        ):
            density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
            axes.plot(x, density, color=color, linestyle=line, linewidth=2, label=label)
        kl = 0.5**2 / (2 * std**2)
        axes.set_title(f"standard deviation {std}: KL = {kl:.2g} nats")
        axes.set(xlabel="action", yticks=[])
        axes.grid(visible=False)
    panels[0].set_ylabel("probability density")
    panels[0].legend()
    title = "The same step of a parameter can be a small or a large step of the policy"
    save(figure, "algorithms/background-natural-gradient.png", title)


def trpo():
    """The exact and the quadratic trust region, the full step, and the line search."""
    probs = probabilities(START)
    advantage = REWARDS - probs @ REWARDS
    gradient = (probs * advantage)[:2]
    fisher = (np.diag(probs) - np.outer(probs, probs))[:2, :2]
    direction = np.linalg.solve(fisher, gradient)
    bound = 0.2
    step = direction * np.sqrt(2 * bound / (gradient @ direction))
    figure, axes = plt.subplots(figsize=(7.6, 4.8))
    points = grid()
    surrogate = probabilities(points) @ advantage
    axes.contour(SPAN, SPAN, surrogate, levels=9, colors=GREY, linewidths=0.7, alpha=0.6)
    axes.contour(SPAN, SPAN, kl_from_start(points), levels=[bound], colors=BLUE, linewidths=2.4)
    offset = points - START
    quadratic = (offset @ fisher * offset).sum(axis=-1) / 2
    ellipse = {"levels": [bound], "colors": BLACK, "linewidths": 1.6, "linestyles": "dashed"}
    axes.contour(SPAN, SPAN, quadratic, **ellipse)
    arrow(axes, START, 1.1 * gradient / np.linalg.norm(gradient), GREY, 2)
    arrow(axes, START, step, VERMILLION, 2.5)
    for fraction in (1.0, 0.7, 0.49):
        point = START + fraction * step
        inside = kl_from_start(point) <= bound
        axes.plot(*point, "o" if inside else "x", color=VERMILLION, markersize=9, mew=2)
        if inside:
            break
    axes.plot(*START, "o", color=BLACK)
    for label, style in (
        ("exact KL = max_kl", {"color": BLUE}),
        ("its quadratic approximation", {"color": BLACK, "linestyle": "dashed"}),
        ("gradient", {"color": GREY}),
        ("natural direction; x: refused, o: accepted", {"color": VERMILLION}),
    ):
        axes.plot([], [], linewidth=2, label=label, **style)
    axes.set(xlabel="$\\theta_1$", ylabel="$\\theta_2$", xlim=(-2.6, 2.6), ylim=(-2.0, 2.4))
    axes.legend(fontsize=10, loc="lower right")
    axes.grid(visible=False)
    title = "TRPO steps to the edge of a region in which the KL is bounded"
    save(figure, "algorithms/background-trpo.png", title)


def ppo():
    """The clipped objective of one row, for both signs of its advantage."""
    ratio = np.linspace(0, 2, 401)
    figure, panels = plt.subplots(1, 2, figsize=(9.2, 3.5), sharex=True)
    for axes, sign in zip(panels, (1, -1), strict=True):
        clipped = np.minimum(ratio * sign, np.clip(ratio, 0.8, 1.2) * sign)
        axes.plot(ratio, ratio * sign, color=GREY, linestyle="dotted", linewidth=2)
        axes.plot(ratio, clipped, color=VERMILLION, linewidth=2.6)
        axes.plot(1, sign, "o", color=BLACK)
        axes.axvspan(0.8, 1.2, color=BLUE, alpha=0.1, linewidth=0)
        good = "better" if sign > 0 else "worse"
        axes.set_title(f"advantage {sign:+d}: the action was {good} than average", fontsize=11)
        axes.set_xlabel("ratio of new to old probability")
    panels[0].set_ylabel("objective of this row")
    panels[0].text(1.25, 1.02, "flat: no gradient", color=VERMILLION, fontsize=10)
    panels[1].text(0.05, -1.0, "flat: no gradient", color=VERMILLION, fontsize=10)
    title = "Clipping removes the reason to move a ratio further than 0.2"
    save(figure, "algorithms/background-ppo.png", title)


def fine_tuning():
    """A stream of demonstrations that is cut into blocks."""
    texts = [["[2x2]", "A:", "4", "EOS"], ["[2x4]", "A:", "8", ":)", "EOS"], ["[3x3]", "9", "EOS"]]
    texts += [["[2x3]", "A:", "6", ":)", "EOS"], ["[2x4]", "8"]]
    colors = ("#cfe3f2", "#fbdcc8", "#d3ece3", "#f0dbe7", "#fdf0cc")
    size, figure = 8, plt.figure(figsize=(9.2, 2.9))
    axes = figure.add_axes((0.02, 0.08, 0.96, 0.74))
    place = 0
    for text, color in zip(texts, colors, strict=True):
        block_of_prompt = place // size
        for number, token in enumerate(text):
            row, column = divmod(place, size)
            lost = row != block_of_prompt
            box = (column, -row - 1), 0.96, 0.8
            axes.add_patch(plt.Rectangle(*box, facecolor=color, edgecolor=INK, linewidth=0.8))
            if lost:
                axes.plot([column, column + 0.96], [-row - 1, -row - 0.2], color=VERMILLION, lw=2)
            weight = "bold" if number == 0 else "normal"
            middle = (column + 0.48, -row - 0.6)
            axes.text(*middle, token, ha="center", va="center", fontsize=12, weight=weight)
            place += 1
    for row in range(2):
        axes.text(8.1, -row - 0.6, f"block {row + 1}", va="center", fontsize=11, color=GREY)
    axes.text(3.1, -2.6, "the tail that fills no block is dropped", va="center", color=GREY)
    axes.set(xlim=(0, 9), ylim=(-3.1, 0))
    axes.axis("off")
    title = "Packing: tokens whose prompt is in another block (crossed) do not count"
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.savefig(DOCS / "rlhf/background-fine-tuning.png")
    plt.close(figure)


def reward_model():
    """The probability to prefer the first answer against the difference of the rewards."""
    figure, axes = plt.subplots(figsize=(7.6, 3.4))
    x = np.linspace(-5, 5, 200)
    axes.plot(x, expit(x), color=BLUE, linewidth=2.6)
    for difference in (0, 1, 3):
        axes.plot(difference, expit(difference), "o", color=VERMILLION)
        text = f"difference {difference}: {expit(difference):.0%}"
        axes.text(difference + 0.2, expit(difference) - 0.09, text, fontsize=10)
    axes.set(xlabel="reward of the first answer minus reward of the second")
    axes.set(ylabel="probability that\nthe first is preferred")
    title = "Bradley-Terry: only the difference of two rewards matters"
    save(figure, "rlhf/background-reward-model.png", title)


def box(axes, place, text, color):
    x, y = place
    axes.add_patch(
        FancyBboxPatch(
            (x - 1, y - 0.42),
            2,
            0.84,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=color,
            edgecolor=INK,
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def connect(axes, start, stop, text="", above=0.14, bend=0.0):
    axes.add_patch(
        FancyArrowPatch(
            start,
            stop,
            arrowstyle="-|>",
            mutation_scale=16,
            color=INK,
            connectionstyle=f"arc3,rad={bend}",
        )
    )
    middle = (np.array(start) + np.array(stop)) / 2
    axes.text(middle[0], middle[1] + above, text, ha="center", fontsize=10, color=GREY)


def rlhf():
    """The loop of RLHF."""
    figure = plt.figure(figsize=(9.6, 3.9))
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.84))
    learned, frozen = "#fbdcc8", "#e6e6e6"
    box(axes, (1.1, 2.6), "prompt", "white")
    box(axes, (4.2, 2.6), "policy", learned)
    box(axes, (7.6, 3.4), "reward model", frozen)
    box(axes, (7.6, 1.8), "reference", frozen)
    box(axes, (11.2, 2.6), "reward\n- beta x KL", "white")
    box(axes, (11.2, 0.5), "advantages", "white")
    box(axes, (7.6, 0.5), "critic", learned)
    connect(axes, (2.1, 2.6), (3.2, 2.6))
    connect(axes, (5.2, 2.75), (6.6, 3.35), "response", above=0.22)
    connect(axes, (5.2, 2.45), (6.6, 1.85), "its log-\nprobabilities", above=-0.75)
    connect(axes, (8.6, 3.35), (10.2, 2.75))
    connect(axes, (8.6, 1.85), (10.2, 2.45))
    connect(axes, (11.2, 2.18), (11.2, 0.92))
    connect(axes, (8.6, 0.5), (10.2, 0.5), "values")
    connect(axes, (11.2, 0.08), (4.2, 2.18), bend=-0.35)
    axes.text(3.9, 0.3, "PPO or TRPO\nupdates the policy", ha="center", fontsize=10, color=GREY)
    axes.set(xlim=(0, 12.4), ylim=(-0.9, 4))
    axes.axis("off")
    title = "RLHF: two models learn (orange), two are frozen (grey)"
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.savefig(DOCS / "rlhf/background-rlhf.png")
    plt.close(figure)


def dpo():
    """The loss of one pair against its margin, for three labels."""
    figure, axes = plt.subplots(figsize=(7.6, 3.6))
    margin = np.linspace(-4, 6, 300)
    for label, color, line in (
        (1.0, BLACK, "solid"),
        (0.9, BLUE, "dashed"),
        (0.7, GREEN, "dotted"),
    ):
        loss = -label * np.log(expit(margin)) - (1 - label) * np.log(expit(-margin))
        axes.plot(
            margin, loss, color=color, linestyle=line, linewidth=2.4, label=f"label {label:g}"
        )
        if label < 1:
            best = np.log(label / (1 - label))
            axes.plot(best, loss.min(), "o", color=color)
    axes.plot(0, np.log(2), "o", color=VERMILLION)
    axes.text(-0.15, np.log(2) - 0.3, "start: log 2", color=VERMILLION, ha="right")
    axes.set(xlabel="margin: difference of the implicit rewards", ylabel="DPO's loss")
    axes.legend()
    title = "A probability as label gives a minimum; a judgement (label 1) has none"
    save(figure, "rlhf/background-dpo.png", title)


if __name__ == "__main__":
    policy_gradient()
    advantages()
    natural_gradient()
    trpo()
    ppo()
    fine_tuning()
    reward_model()
    rlhf()
    dpo()
