"""Token tasks: numbers and words, paths, what an answer is worth, and what people write."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cat import describe_the_cat, utility

from minirl.envs.arithmetic import arithmetic, gold_utility
from minirl.envs.token_tasks import EOS

CAT = describe_the_cat()
ONE_WORD = replace(CAT, vocabulary=("soft", EOS), max_words=4)
ONE_STEP = replace(CAT, max_words=1)
ARITHMETIC = arithmetic()


def every_response(task):
    """(words, cut) of every response, the shortest first, then in the order of the vocabulary."""
    for length in range(task.max_words + 1):
        for words in product(task.vocabulary[:-1], repeat=length):
            yield words, length == task.max_words


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


def test_a_readers_utility_is_tabulated_response_by_response():
    expected = [
        [utility(prompt, words, cut) for words, cut in every_response(CAT)]
        for prompt in CAT.prompts
    ]
    np.testing.assert_array_equal(CAT.utilities, expected)


def test_longest_demonstrations_are_cut_and_equal_ones_add_up():
    told = {"soft soft cat": 0.5, "soft cat": 0.25, " soft  cat ": 0.25}
    probs = replace(CAT, demonstrations=lambda prompt: told).demonstration_probs
    assert (probs[:, CAT.response("soft soft cat", cut=True)] == 0.5).all()
    assert (probs[:, CAT.response("soft cat")] == 0.5).all()


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


def test_prompts_are_indices_or_texts():
    np.testing.assert_array_equal(CAT.prompt_indices(CAT.prompts[::-1]), [1, 0])
    np.testing.assert_array_equal(CAT.prompt_indices([1, 0, 1]), [1, 0, 1])
    with pytest.raises(ValueError, match="prompt text 'Describe the cow' is unknown"):
        CAT.prompt_indices(["Describe the cat", "Describe the cow"])
    with pytest.raises(ValueError, match=r"^prompts must be whole numbers 0 \.\. 1, got 2$"):
        CAT.prompt_indices([0, 2])


def test_parent_and_observation_invert_each_other():
    nodes, words = np.indices((CAT.num_contexts, CAT.num_words))
    parents, last = CAT.parent(CAT.child(nodes, words))
    np.testing.assert_array_equal(parents, nodes)
    np.testing.assert_array_equal(last, words)
    paths = CAT.paths(np.array([1]), np.array([CAT.response("soft cat")]))
    contexts = np.array([0, CAT.response("soft"), CAT.response("soft cat")])
    np.testing.assert_array_equal(paths.observations[0], CAT.observation(1, contexts))


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
    ("prompts", "responses", "message"),
    [
        ([2], [0], "prompts must be whole numbers 0 .. 1, got 2"),
        ([-1], [0], "prompts must be whole numbers 0 .. 1, got -1"),
        ([0], [40], "responses must be whole numbers 0 .. 39, got 40"),
        ([0.0], [0], "prompts must be whole numbers"),
        *(
            (*shapes, r"must be as many numbers each, \(M,\), got shapes")
            for shapes in (([0], [1, 2]), ([0, 1], [1]), (0, 1), ([[0]], [[1]]))
        ),
    ],
)
def test_paths_of_unknown_numbers_are_refused(prompts, responses, message):
    with pytest.raises(ValueError, match=message):
        CAT.paths(np.array(prompts), np.array(responses))
    with pytest.raises(ValueError, match="response must be a number 0 .. 39, got 40"):
        CAT.text(40)


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
