"""Run the whole alignment chain in one call; finished runs are stored and not repeated."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minirl.experiments.alignment.chain import (
    ALL_METHODS,
    METHODS,
    MODELS,
    MethodRun,
    Prepared,
    overoptimise,
    prepare,
    run_method,
)
from minirl.experiments.alignment.report import (
    describe_answers,
    describe_method,
    describe_overoptimisation,
    describe_preparation,
    draw_figures,
    samples_page,
    summarize,
)
from minirl.experiments.alignment.verifiable import (
    describe_verifiable,
    draw_verifiable,
    success_rates,
)
from minirl.experiments.runs import RUNS, claimed_folder, load_run
from minirl.presets import VERIFIED
from minirl.support.interrupts import hold_interrupts
from minirl.support.serialization import save_arrays, source_hash, write_text
from minirl.support.validation import require_count, require_positive, require_seed

FORMAT = "minirl-method-run-1"  # of the files of finished runs


def _stored_run(
    folder: Path, name: str, prepared: Prepared, arguments: dict[str, Any], seed: int
) -> MethodRun:
    """The run that an earlier call stored in `folder`, or else that of `run_method`."""
    identity = {"method": name, "seed": seed, "chain": arguments, "source": source_hash()}
    path = folder / RUNS / f"{name}-seed{seed}.npz"
    stored = None
    with contextlib.suppress(ValueError):  # a run of other code is not used
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


def run_chain(
    out: Path | str,
    *,
    beta: float = 0.3,
    reward: str = "gold",
    model: str = "table",
    methods: Sequence[str] = METHODS,
    labels: int = 3_000,
    seeds: int = 2,
    seed: int = 2,
    say: Callable[[str], None] = print,
    progress: bool = False,
) -> dict[str, Any]:
    """Run all stages on "What is 2x4?", report each, and write figures, texts and a summary.

    Finished runs are stored in `out/runs`. After an interruption, the same call continues from
    them, and its results and texts equal those of an uninterrupted call. `seconds` are those of
    the call that computed the run.

    Parameters
    ----------
    out : path
        Folder for frontier.png, learning.png (unless best-of-n is the only method, because it does
        not learn), overoptimisation.png, verifiable.png, samples.md and summary.json.
    beta : float
        Coefficient of the KL penalty, in units of reward per nat; about 1e-7 to 1e6, see
        `Objective`.
    reward : {"gold", "learned"}
        The reward that the methods learn from: the gold utilities (DPO: soft labels), or the reward
        model (DPO: the hard labels to which the model was fitted). All are judged by gold.
    model : {"table", "mlp"}
        What the language model is: a table with one row per context, fine-tuned as a bigram model,
        or a network of the features of a context.
    methods : sequence of str
        Names from `ALL_METHODS`. The default, `METHODS`, leaves out those for verifiable rewards.
    labels : int
        Number of preference pairs.
    seeds : int
        Number of runs per method. All of them use the corpus and the preferences of `seed`.
    seed : int
        Seed of all randomness.
    say : callable
        Receives each stage's text.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict : the content of summary.json, with the means over seeds of each method.

    Raises
    ------
    ValueError
        For an argument outside its range, or a folder that can't be used.
    """
    require_positive("beta", beta)
    for name, count in (("labels", labels), ("seeds", seeds)):
        require_count(name, count)
    require_seed(seed)
    if reward not in ("gold", "learned"):
        raise ValueError(f'reward must be "gold" or "learned", got {reward!r}')
    if model not in MODELS:
        raise ValueError(f'model must be "table" or "mlp", got {model!r}')
    unknown = [name for name in methods if name not in ALL_METHODS]
    if unknown or not methods or len(set(methods)) < len(methods):
        verified = [name for name in unknown if name in VERIFIED]
        reason = (
            f"; {' and '.join(verified)} can learn only from rewards of 0 and 1, such as those of "
            "a task made by minirl.envs.verifiable.verifiable()"
        )
        raise ValueError(
            f"methods must be different names from {', '.join(ALL_METHODS)}, got "
            f"{', '.join(methods)}{reason if verified else ''}"
        )
    arguments = {
        "beta": float(beta),
        "reward": reward,
        "model": model,
        "methods": list(methods),
        "labels": int(labels),
        "seeds": int(seeds),
        "seed": int(seed),
    }
    bar = tqdm(total=3 + seeds * len(methods), unit="stage", disable=not progress)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bar)
        bar.set_description("fine-tuning, preferences, reward model")
        prepared = prepare(beta=beta, labels=labels, seed=seed, model=model)
        folder = stack.enter_context(claimed_folder(out, {"kind": "rlhf", **arguments}))
        text_rng = np.random.default_rng(seed)
        say(describe_preparation(prepared, text_rng))
        bar.update()
        runs: dict[str, list[MethodRun]] = {name: [] for name in methods}
        for name in methods:
            for method_seed in range(seed, seed + seeds):
                bar.set_description(f"{name}, seed {method_seed}")
                runs[name].append(_stored_run(folder, name, prepared, arguments, method_seed))
                bar.update()
            say(describe_method(name, runs[name], prepared, reward))
        say(describe_answers(runs, prepared, text_rng))
        bar.set_description("over-optimisation")
        followed = overoptimise(prepared, seed)
        say(describe_overoptimisation(followed))
        bar.update()
        bar.set_description("verifiable rewards")
        rates = success_rates(seed)
        say(describe_verifiable(rates))
        bar.update()
        summary = summarize(arguments, runs, followed, prepared)
        draw_figures(folder, runs, followed, prepared, reward)
        draw_verifiable(rates, folder / "verifiable.png")
        sections = {
            "before: the reference": prepared.objective.reference_log_probs,
            **{f"after: {name}": seeds[0].log_probs for name, seeds in runs.items()},
            **{f"hacked: {name}": log_probs for name, log_probs in followed.hacked.items()},
        }
        write_text(folder / "samples.md", samples_page(sections, prepared, text_rng))
        write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary
