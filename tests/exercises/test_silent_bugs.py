"""Each bug of the mystery runs shows in the metrics that the exercise prints."""

from minirl.exercises.silent_bugs import mystery_run


def symptoms(letter, *, bugged=True):
    """Whether rows are learned from too often, a step is far too long, the critic is useless."""
    run = mystery_run(letter, bugged=bugged)
    rows = run["critic_gradient_equivalents"][-1] / 10  # ten epochs
    return (
        rows > 1.1 * run["environment_steps"][-1],
        run["kl"].max() > 1,
        abs(run["explained_variance"][10:].mean()) < 0.1,
    )


def test_each_mystery_run_shows_its_own_symptom_and_no_other():
    assert symptoms("A", bugged=False) == (False, False, False)
    assert symptoms("A") == (True, False, False)
    assert symptoms("B") == (False, True, False)
    assert symptoms("C") == (False, False, True)
