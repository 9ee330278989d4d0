"""Group size and the weight of a prompt; the JavaScript half is group-size.js."""

from minirl.exact.groups import normalized_weight, silent_share

TITLE = "Group size and the weight of a prompt"
CAPTION = (
    "GRPO divides the advantages of a group by the group's standard deviation. This changes the "
    "weight of a prompt. Prompts whose success rate is close to 0 or 1 receive a larger weight "
    "than prompts in between. The dotted line is the weight without the division. The dashed line "
    "is the share of groups whose rewards are all equal. Such groups contain no signal: they do "
    "not change the policy."
)
FUNCTIONS = ["minirl.exact.groups.normalized_weight", "minirl.exact.groups.silent_share"]
SECTIONS = ("13.4",)
CASES = [
    {"p": 0.02, "group_size": 8},
    {"p": 0.5, "group_size": 2},
    {"p": 0.9, "group_size": 64},
    {"p": 0.01, "group_size": 3},
]


def data() -> None:
    return None


def numbers(values: dict[str, float]) -> dict[str, float]:
    p, group_size = values["p"], int(values["group_size"])
    return {
        "weight": float(normalized_weight(p, group_size)),
        "silent": float(silent_share(p, group_size)),
    }
