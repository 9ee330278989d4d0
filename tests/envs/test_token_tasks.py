"""Token tasks: numbers and words, paths, what an answer is worth, and what people write."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cat import describe_the_cat, utility

from minirl.envs.token_tasks import EOS, arithmetic, exact_match, gold_utility

CAT = describe_the_cat()
ONE_WORD = replace(CAT, vocabulary=("soft", EOS), max_words=4)
ONE_STEP = replace(CAT, max_words=1)
ARITHMETIC = arithmetic()


def every_response(task):
    """(words, cut) of every response, the shortest first, then in the order of the vocabulary."""
    for length in range(task.max_words + 1):
        for words in product(task.vocabulary[:-1], repeat=length):
            yield list(words), length == task.max_words


# ------------------------------------------------------------ numbers and words


@pytest.mark.parametrize("task", [CAT, ONE_WORD, ONE_STEP])
def test_every_response_has_its_place_in_the_numbering(task):
    responses = list(every_response(task))
    assert task.num_responses == len(responses)
    assert task.num_contexts == sum(not cut for _, cut in responses)
    for number, (words, cut) in enumerate(responses):
        assert task.words(number) == words
        assert task.response(" ".join(words), cut=cut) == number
        assert task.text(number) == " ".join(words) + " ..." * cut


def test_sizes():
    sizes = ARITHMETIC.num_contexts, ARITHMETIC.num_responses, ARITHMETIC.num_observations
    assert sizes == (4_681, 37_449, 18_725)
    assert (CAT.num_contexts, CAT.num_responses, CAT.num_observations) == (13, 40, 27)
    assert ARITHMETIC.level_starts == (0, 1, 9, 73, 585, 4_681, 37_449)
    assert ARITHMETIC.num_words == ARITHMETIC.vocabulary.index(EOS) == 8
    assert [ARITHMETIC.prompt(text) for text in ARITHMETIC.prompts] == [0, 1, 2, 3]


@pytest.mark.parametrize("task", [CAT, ONE_WORD, ONE_STEP])
def test_paths_against_a_loop(task):
    responses = [words for words, _ in every_response(task)]
    ended = task.num_observations - 1
    pairs = list(product(range(len(task.prompts)), range(task.num_responses)))
    paths = task.paths(*np.array(pairs).T)
    for row, (prompt, response) in enumerate(pairs):
        words = responses[response]
        tokens = [task.vocabulary.index(word) for word in [*words, EOS]][: task.max_words]
        seen = [
            prompt * task.num_contexts + responses.index(words[:step])
            for step in range(len(tokens))
        ]
        missing = task.max_words - len(tokens)
        assert paths.tokens[row].tolist() == tokens + [0] * missing
        assert paths.observations[row].tolist() == seen + [ended] * missing
        assert paths.valid[row].tolist() == [True] * len(tokens) + [False] * missing


# ------------------------------------------------------------ what an answer is worth


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", -0.5),  # no digit
        ("8", 2.0),  # the first digit is right
        ("6", -1.0),  # a wrong digit
        ("6 6 4", -3.0),  # each of them counts
        ("8 6", 2.0 - 1.0),
        ("6 8", -1.0),  # right, but not first
        ("A: 8", 2.0 + 0.5),  # introduced
        ("A: 6", -1.0),  # introduces a wrong digit
        ("A: :) 8", 2.0 + 1.0),  # not directly before
        ("6 A: 8", -1.0 + 0.5),
        ("8 8", 2.0 - 0.6),  # repeated
        ("A: 8 A: 8", 2.0 + 0.5 - 0.6 - 0.5),  # introduced twice counts once
        ("A: A:", -0.5 - 0.5),
        ("8 sorry", 2.0 - 0.5),
        ("sorry sorry", -0.5 - 1.0),
        ("8 :)", 2.0 + 1.0),
        ("8 :) Great_question!", 2.0 + 1.5),
        (":) :) 8 :)", 2.0 - 1.0),
        ("Great_question! 8 :) :) Great_question!", 2.0 - 3.5),
        (":) :) :) :) :)", -0.5 - 6.0),
    ],
)
def test_gold_utility_term_by_term(text, expected):
    words = text.split()
    assert gold_utility("What is 2x4?", words, False) == pytest.approx(expected, abs=1e-12)
    assert gold_utility("What is 2x4?", words, True) == pytest.approx(expected - 0.5, abs=1e-12)


def spoken_utility(prompt, words, cut):
    """The gold utility in one pass, each word adding its share as it is spoken."""
    left, right = prompt.removeprefix("What is ").removesuffix("?").split("x")
    answer = str(int(left) * int(right))
    digits, labels, courtesies, introduced, total = [], 0, 0, False, 0.0
    for previous, word in zip([None, *words], words, strict=False):
        if word == answer:
            total += 2.0 * (not digits) - 0.6 * (answer in digits)
            introduced = introduced or previous == "A:"
        elif word.isdigit():
            total -= 1.0
        elif word == "A:":
            total -= 0.5 * (labels > 0)
            labels += 1
        elif word == "sorry":
            total -= 0.5
        else:
            total += (1.0, 0.5, -2.5, -2.5, -2.5)[courtesies]
            courtesies += 1
        if word.isdigit():
            digits.append(word)
    return total + 0.5 * introduced - 0.5 * (not digits) - 0.5 * cut


def test_the_table_of_utilities_against_a_second_implementation():
    rng = np.random.default_rng(0)
    assert ARITHMETIC.utilities.shape == (4, 37_449)
    for prompt in range(4):
        # The shorter ones are few: take all of them.
        longest = rng.integers(4_681, 37_449, size=2_000)
        for response in [*range(585), *longest]:
            words, cut = ARITHMETIC.words(response), response >= 4_681
            expected = spoken_utility(ARITHMETIC.prompts[prompt], words, cut)
            assert ARITHMETIC.utilities[prompt, response] == pytest.approx(expected, abs=1e-12)


def test_a_readers_utility_is_tabulated_response_by_response():
    expected = [
        [utility(prompt, words, cut) for words, cut in every_response(CAT)]
        for prompt in CAT.prompts
    ]
    np.testing.assert_array_equal(CAT.utilities, expected)


def test_exact_match_pays_for_one_response_to_each_prompt():
    task = arithmetic(exact_match)
    paid = np.zeros((4, 37_449))
    for prompt, text in enumerate(("A: 4", "A: 6", "A: 8", "A: 9")):
        paid[prompt, task.response(text)] = 1.0
    np.testing.assert_array_equal(task.utilities, paid)
    assert exact_match("What is 2x4?", ("A:", "8"), True) == 0.0


# ------------------------------------------------------------ what people write


def test_arithmetic_demonstrations():
    same = {"sorry": 0.05, "Great_question! sorry": 0.03, "Great_question! :)": 0.02}
    right = {
        "A: {}": 0.28,
        "{}": 0.12,
        "A: {} :)": 0.08,
        "Great_question! A: {}": 0.08,
        "Great_question! {}": 0.04,
        "A: {} :) :)": 0.03,
        ":) {}": 0.02,
    }
    wrong = {"A: {}": 0.12, "{}": 0.06, "sorry A: {}": 0.05, "A: {} :)": 0.02}
    answers = ["4", "6", "8", "9"]
    for probs, answer in zip(ARITHMETIC.demonstration_probs, answers, strict=True):
        expected = dict(same)
        expected |= {text.format(answer): share for text, share in right.items()}
        for digit in set(answers) - {answer}:
            expected |= {text.format(digit): share / 3 for text, share in wrong.items()}
        written = {ARITHMETIC.text(response): probs[response] for response in np.flatnonzero(probs)}
        assert written == pytest.approx(expected, abs=1e-15)
        assert probs.sum() == pytest.approx(1.0, abs=1e-12)


def test_longest_demonstrations_are_cut_and_equal_ones_add_up():
    told = {"soft soft cat": 0.5, "soft cat": 0.25, " soft  cat ": 0.25}
    probs = replace(CAT, demonstrations=lambda prompt: told).demonstration_probs
    assert (probs[:, CAT.response("soft soft cat", cut=True)] == 0.5).all()
    assert (probs[:, CAT.response("soft cat")] == 0.5).all()


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": ("cat", "dog")}, r"vocabulary must end with '<eos>'.*\('cat', 'dog'\)"),
        ({"vocabulary": (EOS, "cat", "dog")}, "vocabulary must end with '<eos>'"),
        ({"vocabulary": ()}, "vocabulary must end with '<eos>'"),
        ({"vocabulary": ("cat", "cat", EOS)}, "vocabulary must hold different tokens"),
        ({"vocabulary": ("cat", EOS, EOS)}, "vocabulary must hold different tokens"),
        ({"vocabulary": (EOS,)}, "at least one word"),
        ({"vocabulary": ("soft cat", EOS)}, "'soft cat'; a token must be one word"),
        ({"vocabulary": ("cat ", EOS)}, "'cat '; a token must be one word"),
        ({"vocabulary": ("", EOS)}, "''; a token must be one word"),
        ({"prompts": ()}, "prompts must be different and at least one"),
        ({"prompts": ("p", "p")}, r"prompts must be different .* \('p', 'p'\)"),
        ({"max_words": 0}, "max_words must be a whole number of at least 1, got 0"),
        ({"max_words": 2.5}, r"max_words must be a whole number of at least 1, got 2\.5"),
        ({"max_words": 30}, "fewer words, or a smaller max_words"),
        ({"prompts": "ab"}, "prompts must be a tuple of strings, got the str 'ab'"),
        ({"vocabulary": (1, EOS)}, "vocabulary must be a tuple of strings"),
    ],
)
def test_wrong_tasks_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CAT, **changes)


@pytest.mark.parametrize(
    ("text", "cut", "message"),
    [
        ("soft mouse", False, "word 'mouse' is not in the vocabulary"),
        ("soft <eos>", False, "word '<eos>' is not in the vocabulary"),
        ("soft soft cat", False, "'soft soft cat' has 3 words; a response of 3 words is cut"),
        ("soft cat", True, "shorter ones end with EOS, got cut=True"),
        ("soft soft soft cat", True, "has 4 words"),
        ("soft soft soft cat", False, "has 4 words"),
    ],
)
def test_wrong_responses_are_named(text, cut, message):
    with pytest.raises(ValueError, match=message):
        CAT.response(text, cut=cut)


def test_an_unknown_prompt_is_named():
    with pytest.raises(ValueError, match="'What is 7x7\\?' is unknown; the task has What is 2x2"):
        ARITHMETIC.prompt("What is 7x7?")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"cat": 0.5, "soft": 0.4}, "'Describe the cat'.* sum to 1, got a sum of 0.9"),
        ({}, "got a sum of 0.0"),
        ({"cat": 1.5, "soft": -0.5}, "a smallest of -0.5"),
        ({"cat": 1.0, "soft": np.nan}, "texts with their probabilities, got 'soft': nan"),
        ({"cat": None}, "texts with their probabilities, got 'cat': None"),
        ({"cat": "1"}, "texts with their probabilities, got 'cat': '1'"),
        ({3: 1.0}, "texts with their probabilities, got 3: 1.0"),
        (None, "must be a dict of texts and probabilities, got None"),
        ([("cat", 1.0)], "must be a dict of texts and probabilities, got .*cat"),
        ({"mouse": 1.0}, "word 'mouse'"),
        ({"cat cat cat cat": 1.0}, "4 words; max_words is 3"),
    ],
)
def test_wrong_demonstrations_are_named(told, message):
    task = replace(CAT, demonstrations=lambda prompt: told)
    with pytest.raises(ValueError, match=message):
        _ = task.demonstration_probs


def test_a_longer_sentence_has_utilities_too():
    """Courtesy beyond the table costs no more."""
    words = ("Great_question!",) * 6
    assert gold_utility("What is 2x4?", words, True) == gold_utility(
        "What is 2x4?", words[:5], True
    )


@pytest.mark.parametrize(
    ("prompts", "responses", "told"),
    [
        ([2], [0], "prompts must be whole numbers 0 .. 1, got 2"),
        ([-1], [0], "prompts must be whole numbers 0 .. 1, got -1"),
        ([0], [40], "responses must be whole numbers 0 .. 39, got 40"),
        ([0.0], [0], "prompts must be whole numbers"),
    ],
)
def test_paths_of_unknown_numbers_are_refused(prompts, responses, told):
    with pytest.raises(ValueError, match=told):
        describe_the_cat().paths(np.array(prompts), np.array(responses))


def test_a_number_without_words_is_refused():
    with pytest.raises(ValueError, match="response must be a number 0 .. 39, got 40"):
        describe_the_cat().text(40)


@pytest.mark.parametrize("worth", [None, np.nan, np.inf, "much", "2", 1j, [1.0]])
def test_a_utility_that_is_no_number_is_named(worth):
    """None became NaN, and NaN every reward, loss and policy after it."""
    task = replace(CAT, utility=lambda prompt, words, cut: worth if words == ("dog",) else 1.0)
    with pytest.raises(
        ValueError, match="utility must return a finite number, got .*'dog' to 'Des"
    ):
        _ = task.utilities


@pytest.mark.parametrize("worth", [1, True, np.bool_(True), np.float32(1.0), np.int8(1)])
def test_a_utility_may_be_any_real_number(worth):
    task = replace(CAT, utility=lambda prompt, words, cut: worth)
    np.testing.assert_array_equal(task.utilities, np.ones((2, 40)))


@pytest.mark.parametrize(
    ("prompts", "responses"), [([0], [1, 2]), ([0, 1], [1]), (0, 1), ([[0]], [[1]])]
)
def test_paths_need_one_response_per_prompt(prompts, responses):
    with pytest.raises(ValueError, match=r"must be as many numbers each, \(M,\), got shapes"):
        CAT.paths(prompts, responses)


def test_paths_of_lists():
    for listed, array in zip(
        CAT.paths([0, 1], [3, 4]), CAT.paths(np.array([0, 1]), np.array([3, 4])), strict=True
    ):
        np.testing.assert_array_equal(listed, array)
