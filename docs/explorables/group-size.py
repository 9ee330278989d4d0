"""Group size and the weight of a prompt; the JavaScript half is group-size.js."""

from minirl.exact.groups import normalized_weight, silent_share

TITLE = "Group size and the weight of a prompt"
CAPTION = (
    "Try: compare $K = 3$ with $K = 64$ at a success rate of 0.01. Look at the weight of the "
    "prompt and at the share of its groups without signal. The expected update of a prompt is "
    "$w(p, K) \\nabla p$: the weight $w$ times the gradient of its success rate $p$. GRPO divides "
    "the advantages by the group's standard deviation. From $K = 4$ on, this gives a larger "
    "weight to prompts whose success rate is close to 0 or 1. For $K = 2$ and $K = 3$, all "
    "prompts have the same weight. A group without signal is one whose rewards are all equal: it "
    "does not change the policy."
)
FUNCTIONS = ["minirl.exact.groups.normalized_weight", "minirl.exact.groups.silent_share"]
SECTIONS = ("13.4",)
CASES = [
    {"p": 0.02, "group_size": 8},
    {"p": 0.5, "group_size": 2},
    {"p": 0.9, "group_size": 64},
    {"p": 0.01, "group_size": 3},
    {"p": 0.01, "group_size": 64},
]


def data() -> None:
    return None


def numbers(values: dict[str, float]) -> dict[str, float]:
    p, group_size = values["p"], int(values["group_size"])
    return {
        "weight": float(normalized_weight(p, group_size)),
        "silent": float(silent_share(p, group_size)),
    }
