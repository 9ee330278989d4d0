"""docs/reference/debugging*.png: one failed run on Pendulum, and the same run repaired in steps.

    python docs/drawings/debugging.py

The page docs/reference/debugging.md shows this code. It prints the numbers of the page.
"""

import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from style import BLACK, BLUE, GREEN, GREY, VERMILLION, save

import minirl

SEEDS = 3
PANELS = {
    "mean_return": "mean return of 100 episodes",
    "kl": "KL of the update, nats",
    "explained_variance": "explained variance of the critic",
    "smallest_std": "standard deviation of the policy",
}
STYLES = {
    "failed": (VERMILLION, "solid"),
    "smaller learning rate": (BLACK, "dotted"),
    "and scaled rewards": (BLUE, "dashed"),
    "and discount 0.9": (GREEN, "dashdot"),
}


# begin: on the page
def variants():
    """The failed run, and one repair more from line to line."""
    algorithm, settings = minirl.PPO(learning_rate=0.03), minirl.Settings(num_envs=8)
    yield "failed", algorithm, settings
    algorithm = replace(algorithm, learning_rate=minirl.LinearSchedule(1e-3))
    yield "smaller learning rate", algorithm, settings
    settings = replace(settings, reward_transform=minirl.ReturnScaling(discount=0.99))
    yield "and scaled rewards", algorithm, settings
    settings = replace(
        settings,
        advantages=minirl.GAE(discount=0.9, lam=0.95),
        reward_transform=minirl.ReturnScaling(discount=0.9),
    )
    yield "and discount 0.9", algorithm, settings


def columns_of(algorithm, settings, seed):
    result = minirl.train(
        "Pendulum-v1", algorithm, total_steps=60_000, seed=seed, settings=settings
    )
    return result.history.columns()


# end: on the page


def draw(runs, name, title):
    figure, panels = plt.subplots(2, 2, figsize=(9.6, 6.4), sharex=True)
    for axes, (column, label) in zip(panels.flat, PANELS.items(), strict=True):
        for variant, columns in runs.items():
            color, line = STYLES[variant]
            steps, values = columns["environment_steps"], columns[column]
            axes.plot(steps, values, color=color, linestyle=line, linewidth=2, label=variant)
        axes.set_title(label)
    panels.flat[1].set_yscale("log")
    panels.flat[1].axhspan(0.001, 0.03, color=GREY, alpha=0.15, linewidth=0)
    panels.flat[3].set_yscale("log")
    panels.flat[2].set_ylim(-0.6, 1.05)
    for axes in panels[1]:
        axes.set_xlabel("environment steps")
        axes.set_xticks([0, 30_000, 60_000], ["0", "30,000", "60,000"])
    if len(runs) > 1:
        panels.flat[0].legend(fontsize=10)
    save(figure, f"reference/{name}.png", title)


def main():
    runs = {}
    for variant, algorithm, settings in variants():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `train` warns of the failed run's updates
            seeds = [columns_of(algorithm, settings, seed) for seed in range(SEEDS)]
        runs[variant] = seeds[0]
        finals = [columns["mean_return"][-1] for columns in seeds]
        print(variant, "final returns", np.round(finals, 0))
        for column in ("kl", "explained_variance", "smallest_std", "entropy", "clip_fraction"):
            values = seeds[0][column]
            print(f"    {column}: first {values[:3].round(3)} median {np.median(values):.3g}")
            print(f"        largest {values.max():.3g} last {values[-3:].round(3)}")
    draw(
        {"failed": runs["failed"]},
        "debugging-failed",
        "A failed run: the KL and the explained variance reveal two faults",
    )
    draw(runs, "debugging-repaired", "The same run, repaired in three steps")


if __name__ == "__main__":
    main()
