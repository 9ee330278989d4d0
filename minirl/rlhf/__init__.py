"""The alignment chain, one file per stage, in the order in which a language model goes through it.

========================== =========================================================================
``language_model.py``      a language model is a `Policy` over contexts
``sft.py``                 supervised fine-tuning on packed demonstrations: the frozen reference
``sft_network.py``         the same for a network: gradient steps instead of a closed form
``preferences.py``         pairs of answers, labelled by an annotator
``votes.py``               pairs of answers, ordered by votes as on StackExchange
``reward_model.py``        Bradley-Terry: a reward from preferences
``kl.py``                  the KL to the reference: estimators, and the penalty in the reward
``objective.py``           the objective of RLHF and its optimum, computed exactly
``align.py``               RLHF: rollout, advantages, optimisation
``preference_losses.py``   DPO, IPO and eight related losses of pairs of answers
``dpo.py``                 their loop: preferences without reward model and sampling
``best_of_n.py``           search instead of learning
``rejection_sampling.py``  sample, select, fit, repeat: search and imitation
``process_rewards.py``     a reward for each token, by potential-based shaping
========================== =========================================================================
"""

from minirl.algorithms.reference_loss import ReferenceLoss, k1, k2, k3
from minirl.envs.addition import addition, operand_features
from minirl.envs.arithmetic import arithmetic, exact_match
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.envs.token_tasks import EOS, TokenTask
from minirl.rlhf.align import align
from minirl.rlhf.best_of_n import sample_best_of_n
from minirl.rlhf.dpo import DPO, implicit_reward, probability_masses
from minirl.rlhf.kl import AdaptiveReferenceBeta, ReferenceKL
from minirl.rlhf.language_model import (
    full_prefix_policy,
    log_table,
    network_policy,
    sample_responses,
)
from minirl.rlhf.objective import Objective, reward_by_prompt
from minirl.rlhf.preference_losses import PREFERENCE_LOSSES
from minirl.rlhf.preferences import (
    Annotator,
    FreshPairs,
    Preferences,
    length_biased,
    sample_pairs,
)
from minirl.rlhf.process_rewards import PotentialShaping, soft_values
from minirl.rlhf.rejection_sampling import (
    fit_bigrams,
    fit_network,
    fit_table,
    keep_best,
    keep_right,
    rejection_sampling,
)
from minirl.rlhf.reward_model import (
    accuracy,
    bag_of_words,
    bayes_ceiling,
    calibration,
    fit_reward_model,
    one_hot,
)
from minirl.rlhf.sft import Corpus, fine_tune, sample_demonstrations
from minirl.rlhf.sft_network import fine_tune_network
from minirl.rlhf.votes import Questions, pairs_from_scores, sample_questions, stack_exchange_score

__all__ = [
    "DPO",
    "EOS",
    "PREFERENCE_LOSSES",
    "AdaptiveReferenceBeta",
    "Annotator",
    "Corpus",
    "FreshPairs",
    "Objective",
    "PotentialShaping",
    "Preferences",
    "Questions",
    "ReferenceKL",
    "ReferenceLoss",
    "TokenGenerationVectorEnv",
    "TokenTask",
    "accuracy",
    "addition",
    "align",
    "arithmetic",
    "bag_of_words",
    "bayes_ceiling",
    "calibration",
    "exact_match",
    "fine_tune",
    "fine_tune_network",
    "fit_bigrams",
    "fit_network",
    "fit_reward_model",
    "fit_table",
    "full_prefix_policy",
    "implicit_reward",
    "k1",
    "k2",
    "k3",
    "keep_best",
    "keep_right",
    "length_biased",
    "log_table",
    "network_policy",
    "one_hot",
    "operand_features",
    "pairs_from_scores",
    "probability_masses",
    "rejection_sampling",
    "reward_by_prompt",
    "sample_best_of_n",
    "sample_demonstrations",
    "sample_pairs",
    "sample_questions",
    "sample_responses",
    "soft_values",
    "stack_exchange_score",
]
