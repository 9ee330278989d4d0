"""The exact KL of next-token distributions against one sampled log-ratio, over the vocabulary.

    python -m benchmarks.speed.kl_cost    (half a minute; the table of docs/rlhf/claims.md)

One core, 64 tokens, a last layer of 768 features, float32. Both ways need the logits of both
policies, which the matrix product with the last layer makes; the exact KL then sums over the
vocabulary, the sampled one normalises the logits and picks a token. CPU times are medians.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import study
from minirl import Categorical

ROWS, FEATURES, REPEATS = 64, 768, 15
VOCABULARIES = (9, 1_000, 8_000, 32_000, 128_000)


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    work(*arguments)
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        work(*arguments)
        found.append(time.process_time() - start)
    return float(np.median(found))


def sampled(logits: np.ndarray, other: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return Categorical(logits).log_prob(actions) - Categorical(other).log_prob(actions)


def exact(logits: np.ndarray, other: np.ndarray) -> np.ndarray:
    return Categorical(logits).kl(Categorical(other))


def main() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((ROWS, FEATURES), np.float32)
    head = ["vocabulary", "last layer, ms", "sampled log-ratio, ms", "exact KL, ms"]
    lines = []
    for tokens in VOCABULARIES:
        layer = rng.standard_normal((FEATURES, tokens), np.float32) / FEATURES**0.5
        logits = hidden @ layer
        other = logits + 0.3 * rng.standard_normal(logits.shape, np.float32)
        policy, reference = Categorical(logits), Categorical(other)
        product = 2 * seconds(np.matmul, hidden, layer)  # of both policies
        ratio = seconds(sampled, logits, other, policy.sample(rng))
        draws = [policy.sample(rng) for _ in range(20)]
        ratios = [policy.log_prob(draw) - reference.log_prob(draw) for draw in draws]
        spread = np.std(ratios) / policy.kl(reference).mean()
        milliseconds = [1e3 * product, 1e3 * ratio, 1e3 * seconds(exact, logits, other)]
        cells = [f"{time:.2f}" for time in milliseconds]
        lines.append([f"{tokens:,}", *cells, f"{spread:.0f} times the KL"])
    print(study.markdown([*head, "std of sampled"], lines))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
