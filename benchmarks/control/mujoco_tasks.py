"""PPO and TRPO on five MuJoCo tasks, one million steps, three seeds, beside published results.

    pip install -e '.[mujoco]'
    python -m benchmarks.control.mujoco_tasks            (about five hours on one core)
    python -m benchmarks.control.mujoco_tasks --table    (the tables of docs/results/control.md)
    python -m benchmarks.control.mujoco_tasks --figure docs/results/mujoco.png

Settings are the presets of minirl. Other methods explain differences to published runs: PPO on
HalfCheetah with the time limit treated as a termination, as in CleanRL; TRPO on four tasks with the
RL Zoo's settings, those of the published tuned runs; on Swimmer, both sets of settings with both
discounts, and without clipping of values. benchmarks/results/mujoco contains scores.csv, with one
row per run, and curves.csv, with one row every 20 updates. The last policy of seed 0 of each task
and preset is saved in benchmarks/policies; it is never chosen as the best seed. The commands
`python -m minirl evaluate` and `watch` replay it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import minirl
from benchmarks import study
from benchmarks.control import runs
from benchmarks.control.choices import TimeLimitIsDeath
from minirl.experiments import figures
from minirl.experiments.statistics import with_interval

RESULTS = study.RESULTS / "mujoco"
ENVIRONMENTS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5", "InvertedPendulum-v5")
ALGORITHMS = ("ppo", "trpo")
STEPS = 1_000_000
SWIMMER_DISCOUNT = 0.9999
FARSIGHTED = tuple(f"{name}, discount {SWIMMER_DISCOUNT}" for name in ALGORITHMS)
UNCLIPPED = tuple(f"{method}, values not clipped" for method in FARSIGHTED)
DEATH = "ppo, time limit as death"
ZOO = "trpo, RL Zoo's settings"
ZOO_NEARSIGHTED = f"{ZOO}, discount 0.99"
ZOO_TRPO = minirl.TRPO(cg_iterations=25, line_search_shrink=0.8, normalize_advantages=True)
ZOO_MAX_KL = {"HalfCheetah-v5": 0.04}  # elsewhere TRPO's default
ZOO_SETTINGS = minirl.Settings(
    num_envs=2,
    rollout_steps=1024,
    normalize_observations=True,
    reward_transform=minirl.ReturnScaling(),
    critic_fit=minirl.CriticFit(
        learning_rate=1e-3, epochs=20, minibatch_size=128, optimizer=minirl.Adam(epsilon=1e-5)
    ),
)
UPDATES_PER_ROW = 20

# At one million steps, versions -v4 and earlier; docs/results/control.md has the sources and the
# meaning of each ±. Greedy episodes are compared with `evaluation_return`, the others with the
# training return.
PUBLISHED = {
    "ppo": {
        "CleanRL": ("1443 ± 46", "2383 ± 272", "2288 ± 572", "", "963 ± 22"),
        "its paper": ("~1800", "~2330", "~3460", "~108", ""),
        "Spinning Up": ("1738 ± 526", "1792 ± 535", "1216 ± 327", "108 ± 22", ""),
    },
    "trpo": {
        "Spinning Up": ("721 ± 278", "1161 ± 319", "555 ± 286", "85 ± 41", ""),
        "sb3-contrib, greedy": ("1803 ± 46", "3372 ± 215", "4502 ± 234", "359 ± 2", ""),
    },
}


class Item(NamedTuple):
    """One run; the method is an algorithm's name or one of those above."""

    env: str
    method: str
    seed: int


SCORES = study.Study(RESULTS / "scores.csv", Item._fields, runs.SCORES)
CURVES = study.Study(
    RESULTS / "curves.csv",
    Item._fields,
    ("environment_steps", "mean_return", "kl", "explained_variance"),
)


def wanted(seeds: int) -> list[Item]:
    """All runs, seed by seed: the presets', then the others."""
    presets = [(env, algorithm) for env in ENVIRONMENTS for algorithm in ALGORITHMS]
    others = [("Swimmer-v5", method) for method in (*FARSIGHTED, *UNCLIPPED, ZOO_NEARSIGHTED)]
    others += [(env, ZOO) for env in ENVIRONMENTS if env != "InvertedPendulum-v5"]
    others += [("HalfCheetah-v5", DEATH)]
    return [
        Item(*run, seed) for group in (presets, others) for seed in range(seeds) for run in group
    ]


def choices(item: Item) -> tuple[minirl.Algorithm | str, minirl.Settings]:
    """Algorithm and settings of a run."""
    algorithm: minirl.Algorithm | str = item.method.partition(", ")[0]
    settings = minirl.preset(item.env, algorithm).settings
    if item.method.startswith(ZOO):
        algorithm = replace(ZOO_TRPO, max_kl=ZOO_MAX_KL.get(item.env, ZOO_TRPO.max_kl))
        settings = ZOO_SETTINGS
    if item.method in UNCLIPPED:
        settings = replace(settings, critic_fit=replace(settings.critic_fit, value_clip=None))
    if item.method == DEATH:
        settings = replace(settings, advantages=TimeLimitIsDeath(settings.advantages))
    if item.env == "Swimmer-v5" and item.method not in (*ALGORITHMS, ZOO_NEARSIGHTED):
        settings = replace(
            settings,
            advantages=replace(settings.advantages, discount=SWIMMER_DISCOUNT),
            reward_transform=minirl.ReturnScaling(SWIMMER_DISCOUNT),
        )
    return algorithm, settings


def run(item: Item) -> tuple[list[str], list[list[str]]]:
    """Train and evaluate: the values of a row of scores.csv, and of the rows of curves.csv."""
    algorithm, settings = choices(item)
    result = minirl.train(item.env, algorithm, total_steps=STEPS, seed=item.seed, settings=settings)
    if item.seed == 0 and item.method in ALGORITHMS:
        runs.save_policy(item.env, item.method, result)
    columns = result.history.columns()
    last = len(columns["environment_steps"]) - 1
    updates = sorted({*range(UPDATES_PER_ROW - 1, last, UPDATES_PER_ROW), last})
    curves = [[f"{columns[name][update]:.5g}" for name in CURVES.values] for update in updates]
    scores = runs.scores(result, item.env, item.seed, episodes=20)
    return [f"{score:.6g}" for score in scores], curves


def store(item: Item, values: tuple[list[str], list[list[str]]]) -> None:
    """Append the rows of a run; it is finished once scores.csv contains it."""
    scores, curves = values
    CURVES.append([*item, *row] for row in curves)
    SCORES.append([[*item, *scores]])


# Color and line of each method.
LOOKS = {
    "ppo": (figures.VERMILLION, "-"),
    "trpo": (figures.BLUE, "--"),
    FARSIGHTED[0]: (figures.ORANGE, ":"),
    FARSIGHTED[1]: (figures.SKY_BLUE, ":"),
    UNCLIPPED[0]: (figures.ORANGE, "-"),
    UNCLIPPED[1]: (figures.SKY_BLUE, "--"),
    DEATH: (figures.PURPLE, ":"),
    ZOO: (figures.GREEN, "-."),
    ZOO_NEARSIGHTED: (figures.BLACK, ":"),
}
MARKERS = "osD"  # of the published results of an algorithm


def title(method: str) -> str:
    """The name of minirl's method in table and legend: "PPO, minirl, discount 0.9999"."""
    name, comma, more = method.partition(", ")
    return f"{name.upper()}, minirl{comma}{more}"


def scores_table(score: str, greedy: bool) -> str:
    """Mean [smallest, largest] over seeds of a column of scores.csv; then published scores."""
    stored = study.grouped(SCORES.rows(), "method", "env")

    def cell(method: str, env: str) -> str:
        values = study.numbers(stored.get((method, env), []), score)
        return with_interval(np.mean(values), min(values), max(values), ".0f") if values else ""

    lines = []
    for algorithm in ALGORITHMS:
        for method in (name for name in LOOKS if name.startswith(algorithm)):
            lines.append([f"**{title(method)}**", *(cell(method, env) for env in ENVIRONMENTS)])
        for source, published in PUBLISHED[algorithm].items():
            if source.endswith("greedy") == greedy:
                lines.append([f"{algorithm.upper()}, {source}", *published])
    return study.markdown(["", *(env.removesuffix("-v5") for env in ENVIRONMENTS)], lines)


def table() -> str:
    """Both tables of docs/results/control.md."""
    training = scores_table("final_training_return", greedy=False)
    greedy = scores_table("evaluation_return", greedy=True)
    return study.titled(
        {
            "**The last 100 training episodes**": training,
            "**Greedy episodes of the last policy**": greedy,
        }
    )


SWIMMER = "Swimmer-v5"
QUESTIONS = {  # part of the file's name: title, environments, methods
    "": (
        "TRPO and PPO of minirl (lines) and published results (markers)",
        tuple(env for env in ENVIRONMENTS if env != SWIMMER),
        ("ppo", "trpo"),
    ),
    "-settings": (
        "What do other settings change?",
        ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"),
        ("ppo", DEATH, "trpo", ZOO),
    ),
    "-swimmer": (
        "Swimmer: a discount near 1 finds the better stroke, in some seeds",
        (SWIMMER,),
        tuple(method for method in LOOKS if method != DEATH),
    ),
}


def draw(path: Path) -> None:
    """One figure per question; their names are that of `path` with a part appended to its stem."""
    for part, (question, environments, methods) in QUESTIONS.items():
        figure = Figure(figsize=(10.5, 6.6), layout="constrained")
        side = 1 if len(environments) == 1 else 2
        grid = list(np.atleast_1d(figure.subplots(side, side)).flat)
        for axes, env in zip(grid, environments, strict=False):
            draw_environment(axes, env, methods)
        for axes in grid[len(environments) :]:
            axes.axis("off")
        figure.legend(
            handles=legend_lines(methods),
            loc="outside lower center",
            ncols=1 + side,
            frameon=False,
        )
        figure.suptitle(question, x=0.01, ha="left", fontsize=14, fontweight="bold")
        figure.savefig(path.with_stem(path.stem + part), dpi=120)


def draw_environment(axes: Any, env: str, methods: Sequence[str]) -> None:
    """Learning curves, thin per seed and thick for the mean; published scores at the right."""
    rows = study.grouped(CURVES.rows(), "env", "method", "seed")
    place = ENVIRONMENTS.index(env)
    for method in methods:
        color, line = LOOKS[method]
        seeds = [run for key, run in rows.items() if key[:2] == (env, method)]
        steps = [np.array(study.numbers(seed, "environment_steps")) / 1e6 for seed in seeds]
        returns = [study.numbers(seed, "mean_return") for seed in seeds]
        for curve in zip(steps, returns, strict=True):
            axes.plot(*curve, line, color=color, linewidth=0.7, alpha=0.6)
        if seeds:
            axes.plot(steps[0], np.mean(returns, axis=0), line, color=color, linewidth=2.4)
    for side, algorithm in enumerate(ALGORITHMS):
        for number, cells in enumerate(PUBLISHED[algorithm].values()):
            middle, _, spread = cells[place].removeprefix("~").partition(" ± ")
            if middle:
                axes.errorbar(
                    1.04 + 0.03 * (3 * side + number),
                    float(middle),
                    float(spread or 0),
                    color=LOOKS[algorithm][0],
                    marker=MARKERS[number],
                    markersize=6,
                    clip_on=False,
                )
    axes.set(xlabel="million environment steps", xticks=[0, 0.5, 1])
    axes.set_title(env, loc="left")
    axes.set_ylabel("return of the last 100 episodes")
    axes.spines[["top", "right"]].set_visible(False)


def legend_lines(methods: Sequence[str]) -> list[Line2D]:
    """One line per method, and one marker per published source."""
    looks: list[dict[str, Any]] = [
        {"label": title(method), "color": color, "linestyle": line, "linewidth": 2}
        for method, (color, line) in LOOKS.items()
        if method in methods
    ]
    for name, sources in PUBLISHED.items():
        for marker, source in zip(MARKERS, sources, strict=False):
            label = f"{name.upper()}, {source}"
            color = LOOKS[name][0]
            looks.append({"label": label, "color": color, "linestyle": "none", "marker": marker})
    return [Line2D([], [], **look) for look in looks]


if __name__ == "__main__":
    study.main(__doc__, SCORES, run, wanted, table, draw=draw, seeds=3, store=store)
