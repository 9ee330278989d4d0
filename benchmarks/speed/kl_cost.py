"""Cost of the exact KL of next-token distributions and of one sampled log-ratio.

    python -m benchmarks.speed.kl_cost    (half a minute; the table of docs/rlhf/claims.md)

One core, 64 tokens, a last layer of 768 features, float32. Both ways need the logits of both
policies, which are the matrix products with the last layer. The exact KL then sums over the
vocabulary; the sampled log-ratio normalises the logits and picks a token. CPU times are medians.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import study
from benchmarks.speed.timing import repeated
from minirl import Categorical

ROWS, FEATURES, REPEATS = 64, 768, 15
VOCABULARIES = (9, 1_000, 8_000, 32_000, 128_000)


def milliseconds(work: Callable[..., object], *arguments: object) -> float:
    """Median CPU time of work(*arguments)."""
    return 1e3 * float(np.median(repeated(partial(work, *arguments), REPEATS)))


def sampled(logits: np.ndarray, other: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """log pi(a) - log pi_ref(a) of one token per row."""
    return Categorical(logits).log_prob(actions) - Categorical(other).log_prob(actions)


def exact(logits: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL(pi || pi_ref) per row."""
    return Categorical(logits).kl(Categorical(other))


def table() -> str:
    """Times per vocabulary, and the standard deviation of sampled log-ratios relative to the KL."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((ROWS, FEATURES), np.float32)
    head = ["vocabulary", "last layer, ms", "sampled log-ratio, ms", "exact KL, ms"]
    lines = []
    for tokens in VOCABULARIES:
        layer = rng.standard_normal((FEATURES, tokens), np.float32) / FEATURES**0.5
        logits = hidden @ layer
        other = logits + 0.3 * rng.standard_normal(logits.shape, np.float32)
        policy = Categorical(logits)
        times = (
            2 * milliseconds(np.matmul, hidden, layer),  # of both policies
            milliseconds(sampled, logits, other, policy.sample(rng)),
            milliseconds(exact, logits, other),
        )
        log_ratios = [sampled(logits, other, policy.sample(rng)) for _ in range(20)]
        spread = np.std(log_ratios) / exact(logits, other).mean()
        cells = [f"{time:.2f}" for time in times]
        lines.append([f"{tokens:,}", *cells, f"{spread:.0f} times the KL"])
    return study.markdown([*head, "std of sampled"], lines)


if __name__ == "__main__":
    with threadpool_limits(1):
        print(table())
