"""How minirl's time grows: with networks, minibatches, environments, sentences and vocabularies.

    .venv-peers/bin/python -m benchmarks.speed.scaling    (measures; without PyTorch it only prints)
    python -m benchmarks.speed.scaling --table            (the tables of speed-scaling.md)
    python -m benchmarks.speed.scaling --figure docs/results/scaling.png

About three minutes of CPU time; `make bench-peers` sets up .venv-peers. minirl is compared with a
bound (the bare matrix products, the environments alone, Adam on all entries) and, where it can be
imported, with the same work in PyTorch: its eager mode on one thread, written as lean as possible.
They take turns of at least ten milliseconds, and the turns of a point are spread over three rounds,
so that no point depends on one disturbed second. benchmarks/results/scaling.csv contains medians
and quartiles of CPU time, and of the ratio to minirl's time in the same turn.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import minirl
from benchmarks import study
from benchmarks.speed import bounds
from benchmarks.speed.alignment import adam_alone
from benchmarks.speed.timing import Work, cpu_seconds, machine
from minirl import rlhf
from minirl.exact import sequences
from minirl.experiments import figures
from minirl.experiments.statistics import with_interval
from minirl.networks import MLP
from minirl.presets import preset
from minirl.rlhf.align import ENVIRONMENT
from minirl.rollout import collect, reset
from minirl.support.machine import one_core

try:
    import torch
except ImportError:
    torch = None

WIDTHS = (64, 128, 256, 512)
ROWS = (64, 256, 1024, 4096)
UNITS = "hidden units per layer"
KERNELS = [(width, rows) for width in (64, 512) for rows in (256, 4096)]
ENVIRONMENTS = (8, 32, 128, 512, 1024)
STEPS = 32  # per environment, in one rollout
SENTENCES = ((8, 2), (8, 3), (8, 4), (8, 5), (8, 6), (4, 5), (12, 5), (16, 5))  # words, length
PROMPTS = 4
ROUNDS = 3
TURNS, LONG_TURNS = 5, 2  # of each round
TURN_SECONDS = 0.01
MINIRL, BOUND, TORCH = "minirl", "bound", "PyTorch"
PPO_STEP, FISHER, ROLLOUT = "PPO minibatch step", "Fisher-vector product", "rollout"
PRODUCT, TANH = "matrix product alone", "tanh alone"
ALIGN_PPO, ALIGN_TRPO, OPTIMUM = "align PPO", "align TRPO", "exact optimum"


class Measurement(NamedTuple):
    """One line of the file; times in microseconds, ratios to minirl's time, sizes 0 if unused."""

    work: str
    width: int  # of both hidden layers
    rows: int  # of a minibatch, or environments of a rollout
    words: int  # of a vocabulary, without EOS
    length: int  # of the longest sentence, in words
    contender: str
    lower: float
    median: float
    upper: float
    ratio_lower: float
    ratio: float
    ratio_upper: float


COLUMNS = Measurement._fields
STUDY = study.Study(study.RESULTS / "scaling.csv", COLUMNS[:6], COLUMNS[6:])


def take_turns(contenders: Sequence[Work]) -> np.ndarray:
    """CPU seconds per call (TURNS, contenders), after calls that warm up and are not counted."""
    calls = []
    for work in contenders:
        work()
        calls.append(max(1, math.ceil(TURN_SECONDS / max(cpu_seconds(work, 2), 1e-6))))
    turn = list(zip(contenders, calls, strict=True))
    return np.array([[cpu_seconds(work, count) for work, count in turn] for _ in range(TURNS)])


def measurements(
    work: str, sizes: tuple[int, int, int, int], names: Sequence[str], seconds: np.ndarray
) -> Iterator[Measurement]:
    """Medians and quartiles of `seconds` (turns, contenders); minirl is the first contender."""
    times = np.percentile(seconds, (25, 50, 75), axis=0).T * 1e6
    ratios = np.percentile(seconds / seconds[:, :1], (25, 50, 75), axis=0).T
    for name, time, ratio in zip(names, times, ratios, strict=True):
        yield Measurement(work, *sizes, name, *time.tolist(), *ratio.tolist())


def torch_ppo_step(width: int, rows: int) -> tuple[Work]:
    """`bounds.ppo_step` in PyTorch: one backward pass of the joint loss, one fused Adam."""
    policy, critic = map(torch_network, bounds.cartpole_networks(width))
    optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], 3e-4, fused=True)
    batch = bounds.random_batch(rows)
    observations, old_log_probs = map(torch.from_numpy, (batch.observations, batch.log_probs))
    advantages, returns = map(torch.from_numpy, (batch.advantages, batch.returns))
    actions = torch.from_numpy(batch.actions[:, None])

    def step() -> tuple[Any, Any]:
        log_probs = torch.log_softmax(policy(observations), 1).gather(1, actions)[:, 0]
        ratio = torch.exp(log_probs - old_log_probs)
        clipped = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        errors = critic(observations)[:, 0] - returns
        loss = 0.5 * (errors * errors).mean() - clipped.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return policy, critic

    return (step,)


def torch_fisher_product(width: int, rows: int) -> tuple[Work]:
    """F v as sb3-contrib does it: the gradient of (grad KL . v), on a graph that is reused."""
    model, _ = bounds.cartpole_networks(width)
    policy = torch_network(model)
    parameters = list(policy.parameters())
    observations = torch.from_numpy(bounds.random_batch(rows).observations)
    log_probs = torch.log_softmax(policy(observations), 1)
    old = log_probs.detach()
    kl = (old.exp() * (old - log_probs)).sum(1).mean()
    flat = torch.cat([g.ravel() for g in torch.autograd.grad(kl, parameters, create_graph=True)])
    vector = torch_vector(model.network, bounds.random_vector(len(flat)))

    def product() -> torch.Tensor:
        gradient = torch.autograd.grad((flat * vector).sum(), parameters, retain_graph=True)
        return torch.cat([g.ravel() for g in gradient])

    return (product,)


def torch_network(model: minirl.Policy | minirl.Critic) -> Any:
    """The same network, with the same weights."""
    layers = []
    for inputs, outputs in pairwise(model.network.sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    twin = torch.nn.Sequential(*layers[:-1])
    weights = torch_arrays(model.network, model.parameters)
    twin.load_state_dict(dict(zip(twin.state_dict(), weights, strict=True)))
    return twin


def torch_arrays(network: MLP, theta: np.ndarray) -> list[Any]:
    """minirl's flat vector in the shapes of PyTorch's parameters, which hold transposed weights."""
    return [torch.tensor(array.T) for layer in network.layers(theta) for array in layer]


def torch_vector(network: MLP, theta: np.ndarray) -> Any:
    """minirl's flat vector in PyTorch's order."""
    return torch.cat([array.ravel() for array in torch_arrays(network, theta)])


def kernel(library: Any, name: str, width: int, rows: int) -> tuple[Work]:
    """A hidden layer's matrix product, or "tanh" of its input, into a ready-made array."""
    rng = np.random.default_rng(0)
    layer, weights = rng.standard_normal((rows, width)), rng.standard_normal((width, width))
    inputs = [layer] if name == "tanh" else [layer, weights]
    arrays: list[Any] = [array.astype("float32") for array in (*inputs, layer)]
    if library is torch:
        arrays = [torch.from_numpy(array) for array in arrays]
    return (partial(getattr(library, name), *arrays[:-1], out=arrays[-1]),)


def rollout(width: int, environments: int) -> tuple[Work, Work]:
    """`STEPS` steps of every environment, with log-probabilities and values; the steps alone."""
    rng = np.random.default_rng(0)
    policy, critic = bounds.cartpole_networks(width)
    envs = minirl.make_vector_env("CartPole-v1", environments)
    position = reset(envs, seed=0)

    def work() -> None:
        nonlocal position
        _, position = collect(envs, policy, critic, position, rng, steps=STEPS)

    alone = minirl.make_vector_env("CartPole-v1", environments)
    alone.reset(seed=0)
    actions = rng.integers(2, size=(STEPS, environments))

    def bound() -> None:
        for action in actions:
            alone.step(action)

    return work, bound


def torch_rollout(width: int, environments: int) -> tuple[Work]:
    """The same in PyTorch: the loop computes actions only, one pass afterwards the rest."""
    policy, critic = map(torch_network, bounds.cartpole_networks(width))
    envs = minirl.make_vector_env("CartPole-v1", environments)
    current = np.array(envs.reset(seed=0)[0])

    def collect_twin() -> tuple[Any, ...]:
        nonlocal current
        seen, chosen, outcomes = [], [], []
        with torch.no_grad():
            for _ in range(STEPS):
                observations = torch.from_numpy(current)
                probs = torch.softmax(policy(observations), 1)
                action = torch.multinomial(probs, 1)
                step = envs.step(action[:, 0].numpy())
                seen.append(observations)
                chosen.append(action)
                current, *outcome = (np.array(array) for array in step[:4])
                outcomes.append(outcome)
            rows, actions = torch.cat(seen), torch.cat(chosen)
            log_probs = torch.log_softmax(policy(rows), 1).gather(1, actions)
            values = critic(rows)
        return log_probs, values, [np.stack(column) for column in zip(*outcomes, strict=True)]

    return (collect_twin,)


def token_task(words: int, length: int) -> rlhf.TokenTask:
    """A task without meaning, because only its size matters here."""
    return rlhf.TokenTask(
        prompts=tuple(f"prompt{number}" for number in range(PROMPTS)),
        vocabulary=(*(f"word{number}" for number in range(words)), "<eos>"),
        max_words=length,
        utility=lambda prompt, words, cut: 0.0,
        demonstrations=lambda prompt: {},
    )


def sentence_works(words: int, length: int) -> dict[str, dict[str, Callable[[], float]]]:
    """CPU seconds of an update of PPO and of TRPO, the exact optimum, and Adam on all entries."""
    task = token_task(words, length)
    rng = np.random.default_rng(0)
    rewards = rng.standard_normal((PROMPTS, task.num_responses))
    uniform = np.full((PROMPTS, task.num_contexts, words + 1), -np.log(words + 1.0))
    reference = rlhf.full_prefix_policy(task, uniform)
    ppo = preset(ENVIRONMENT, "ppo").algorithm
    sentences = preset(ENVIRONMENT, "ppo").settings.num_envs
    adam_steps = ppo.epochs * round(sentences / ppo.minibatch_size)

    def update(name: str) -> float:
        """The second of two updates, since the first one also resets the environments."""
        sampled = 2 * preset(ENVIRONMENT, name).settings.num_envs
        history = rlhf.align(task, reference, rewards, name, sentences=sampled).history
        first, second = history.columns()["cpu_seconds"]
        return float(second - first)

    adam = partial(adam_alone, reference.parameters.size, adam_steps)
    optimum = partial(sequences.soft_optimal_policy, uniform, rewards, 0.3)
    return {
        ALIGN_PPO: {MINIRL: partial(update, "ppo"), BOUND: partial(cpu_seconds, adam)},
        ALIGN_TRPO: {MINIRL: partial(update, "trpo")},
        OPTIMUM: {MINIRL: partial(cpu_seconds, optimum)},
    }


NETWORKS = [(width, rows) for width in WIDTHS for rows in ROWS]
# The work, minirl with its bound if it has one, the same in PyTorch, and the sizes.
GRIDS: tuple[tuple[Any, ...], ...] = (
    (PPO_STEP, bounds.ppo_step, torch_ppo_step, NETWORKS),
    (FISHER, bounds.fisher_product, torch_fisher_product, NETWORKS),
    (PRODUCT, partial(kernel, np, "matmul"), partial(kernel, torch, "mm"), KERNELS),
    (TANH, partial(kernel, np, "tanh"), partial(kernel, torch, "tanh"), KERNELS),
    (ROLLOUT, rollout, torch_rollout, [(64, environments) for environments in ENVIRONMENTS]),
)


def measure() -> Iterator[Measurement]:
    """Every point in each of the rounds; the turns of all rounds are put together."""
    turns: dict[tuple[Any, ...], list[np.ndarray]] = {}
    points = sum(len(grid) for *_, grid in GRIDS) + len(SENTENCES)
    with tqdm(total=ROUNDS * points, unit="point") as bar:
        for _ in range(ROUNDS):
            for work, in_minirl, in_torch, grid in GRIDS:
                for width, rows in grid:
                    works = in_minirl(width, rows)
                    contenders = dict(zip((MINIRL, BOUND), works, strict=False))
                    if torch:
                        (contenders[TORCH],) = in_torch(width, rows)
                    point = work, (width, rows, 0, 0), tuple(contenders)
                    turns.setdefault(point, []).append(take_turns(list(contenders.values())))
                    bar.update()
            for words, length in SENTENCES:
                works = sentence_works(words, length)
                for turn in range(1 + LONG_TURNS):
                    for work, contenders in works.items():
                        seconds = np.array([[run() for run in contenders.values()]])
                        point = work, (0, 0, words, length), tuple(contenders)
                        if turn:  # the first one warms up
                            turns.setdefault(point, []).append(seconds)
                bar.update()
    for (work, sizes, names), seconds in turns.items():
        yield from measurements(work, sizes, names, np.concatenate(seconds))


def cells(line: Measurement) -> list[str]:
    """A row of the file; four digits are more than the machine repeats."""
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in line]


def from_rows(rows: Iterable[study.Row]) -> list[Measurement]:
    """The measurements that rows of the file contain."""
    kinds = Measurement.__annotations__
    return [Measurement(**{name: kinds[name](cell) for name, cell in row.items()}) for row in rows]


def select(measured: Sequence[Measurement], work: str, contender: str) -> list[Measurement]:
    """The lines of one work and one contender, in the file's order."""
    return [line for line in measured if (line.work, line.contender) == (work, contender)]


def square(line: Measurement) -> str:
    """The widths of both hidden layers."""
    return f"{line.width}x{line.width}"


def three_digits(value: float) -> str:
    """The number with three significant digits at most."""
    return f"{float(f'{value:.3g}'):,g}"


def quartiles(line: Measurement) -> list[float]:
    """Lower quartile, median and upper quartile of the time, in the unit of the tables.

    The unit is us, for rollouts us per transition, for sentences ms.
    """
    unit = STEPS * line.rows if line.work == ROLLOUT else 1e3 if line.length else 1
    return [line.lower / unit, line.median / unit, line.upper / unit]


def time_cell(line: Measurement) -> str:
    """Median and quartiles of the time."""
    low, middle, high = quartiles(line)
    return with_interval(middle, low, high, three_digits)


def ratio_cell(measured: Sequence[Measurement], contender: str, line: Measurement) -> str:
    """A contender's time divided by minirl's, for the work of a minirl line; empty without it."""
    sizes = attrgetter("width", "rows", "words", "length")
    for other in select(measured, line.work, contender):
        if sizes(other) == sizes(line):
            return with_interval(other.ratio, other.ratio_lower, other.ratio_upper, three_digits)
    return ""


def size_table(
    measured: Sequence[Measurement],
    works: Sequence[str],
    columns: Sequence[tuple[str, int, Callable[[Measurement], object]]],
) -> str:
    """One row per size; a column has a title, the index of its work, and the text of its cells."""
    sizes = zip(*(select(measured, work, MINIRL) for work in works), strict=True)
    rows = [[text(lines[index]) for _, index, text in columns] for lines in sizes]
    return study.markdown([title for title, *_ in columns], rows, rule="---:")


def contexts(line: Measurement) -> int:
    """Prompts and prefixes of all sentences of a task: the rows of its table."""
    return PROMPTS * sum(line.words**words for words in range(line.length))


def entries(line: Measurement) -> int:
    """Parameters of the language model: one column per word, and one for the end."""
    return contexts(line) * (line.words + 1)


def tables(measured: Sequence[Measurement]) -> list[str]:
    """The tables of docs/results/speed-scaling.md, in its order."""
    beside_torch, beside_bound = (partial(ratio_cell, measured, one) for one in (TORCH, BOUND))
    rows = "rows", 0, attrgetter("rows")
    network = [
        ("hidden layers", 0, square),
        rows,
        ("minirl, us", 0, time_cell),
        ("PyTorch / minirl", 0, beside_torch),
        ("bare products / minirl", 0, beside_bound),
    ]
    kernels = [
        ("hidden layer", 0, square),
        rows,
        ("product in NumPy, us", 0, time_cell),
        ("PyTorch / NumPy", 0, beside_torch),
        ("tanh in NumPy, us", 1, time_cell),
        ("PyTorch / NumPy", 1, beside_torch),
    ]
    environments = [
        ("environments", 0, attrgetter("rows")),
        ("minirl, us per transition", 0, time_cell),
        ("PyTorch / minirl", 0, beside_torch),
        ("environments alone / minirl", 0, beside_bound),
    ]
    sentences = [
        ("words", 0, attrgetter("words")),
        ("longest sentence", 0, attrgetter("length")),
        ("contexts", 0, lambda line: f"{contexts(line):,}"),
        ("table entries", 0, lambda line: f"{entries(line):,}"),
        ("PPO update, ms", 0, time_cell),
        ("Adam on all entries / PPO", 0, beside_bound),
        ("TRPO update, ms", 1, time_cell),
        ("exact optimum, ms", 2, time_cell),
    ]
    return [
        size_table(measured, [PPO_STEP], network),
        size_table(measured, [FISHER], network),
        size_table(measured, [PRODUCT, TANH], kernels),
        size_table(measured, [ROLLOUT], environments),
        size_table(measured, [ALIGN_PPO, ALIGN_TRPO, OPTIMUM], sentences),
    ]


STYLES = {
    MINIRL: (figures.VERMILLION, figures.SOLID, "o"),
    TORCH: (figures.BLUE, figures.DASHED, "s"),
    BOUND: (figures.BLACK, figures.DOTTED, "."),
}
SENTENCE_STYLES = {
    ALIGN_PPO: ("PPO, one update", (figures.GREEN, figures.DASH_DOT, "D")),
    ALIGN_TRPO: ("TRPO, one update", (figures.PURPLE, figures.LONG_DASHED, "v")),
    OPTIMUM: ("exact optimum", (figures.ORANGE, figures.DOTTED, "^")),
}
# Work, the size that varies, the size that is fixed and its value, title, label, unit of the time.
PANELS = (
    (PPO_STEP, "width", "rows", 256, "PPO minibatch step, 256 rows", UNITS, "step"),
    (PPO_STEP, "rows", "width", 64, "PPO minibatch step, 64x64", "rows of the minibatch", "step"),
    (FISHER, "width", "rows", 1024, "Fisher-vector product, 1024 rows", UNITS, "product"),
    (FISHER, "rows", "width", 64, "Fisher-vector product, 64x64", "rows of the batch", "product"),
    (ROLLOUT, "rows", "width", 64, "rollout, CartPole-v1, 64x64", "environments", "transition"),
)


def draw(measured: Sequence[Measurement], path: Path) -> None:
    """Six panels of time against size, both logarithmic."""
    figure = Figure(figsize=(11.4, 6.6), layout="constrained", facecolor="white")
    *panels, last = figure.subplots(2, 3).flat

    def curve(axes: Any, lines: list[Measurement], of: Callable[..., float], style: Any) -> None:
        color, stroke, marker = style
        x = [of(line) for line in lines]
        low, middle, high = zip(*map(quartiles, lines), strict=True)
        axes.plot(x, middle, color=color, linestyle=stroke, marker=marker, markersize=5)
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)

    for axes, (work, size, fixed, value, title, x_label, unit) in zip(panels, PANELS, strict=True):
        for contender, style in STYLES.items():
            lines = select(measured, work, contender)
            if lines := [line for line in lines if getattr(line, fixed) == value]:
                curve(axes, lines, attrgetter(size), style)
        study.clean(axes, title, x_label, f"CPU µs per {unit}")
        axes.set(xscale="log", yscale="log")
        sizes = sorted({getattr(line, size) for line in select(measured, work, MINIRL)})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    for work, (label, style) in SENTENCE_STYLES.items():
        curve(last, sorted(select(measured, work, MINIRL), key=entries), entries, style)
        last.lines[-1].set_label(label)
    study.clean(last, "token task, minirl only", "table entries", "CPU ms")
    last.set(xscale="log", yscale="log")
    last.legend(loc="upper left", frameon=False)
    names = {MINIRL: "minirl", TORCH: "PyTorch, eager", BOUND: "bound (products; environments)"}
    handles = [
        last.plot([], [], color=color, linestyle=stroke, marker=marker, label=names[contender])[0]
        for contender, (color, stroke, marker) in STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, or show the stored measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the stored tables")
    parser.add_argument("--figure", type=Path, help="draw the stored runs into this file")
    arguments = parser.parse_args()
    measured = from_rows(STUDY.rows())
    if arguments.figure:
        draw(measured, arguments.figure)
        return
    if not arguments.table:
        if torch:
            torch.set_num_threads(1)
        with one_core():
            measured = list(measure())
        if torch:
            study.write(STUDY.path, COLUMNS, map(cells, measured))
            measured = from_rows(STUDY.rows())
    print("\n\n".join(tables(measured)))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
