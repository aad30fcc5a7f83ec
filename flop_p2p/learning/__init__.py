"""Local training and evaluation of one site's model."""

from flop_p2p.learning.accounting import Ledger
from flop_p2p.learning.batched import Lockstep, Stack
from flop_p2p.learning.batches import steps_of_round
from flop_p2p.learning.blueprint import Blueprint, build_blueprint
from flop_p2p.learning.device import find_device
from flop_p2p.learning.draws import Draws, SecretDraws, SeededDraws
from flop_p2p.learning.evaluation import predict
from flop_p2p.learning.metrics import Metrics, evaluate_logits
from flop_p2p.learning.objective import log_prior
from flop_p2p.learning.partway import Partway
from flop_p2p.learning.poisson import build_sampling
from flop_p2p.learning.private import PrivateLearner
from flop_p2p.learning.samples import Samples
from flop_p2p.learning.scoring import evaluate, score
from flop_p2p.learning.trainee import Trainee
from flop_p2p.learning.training import Learner, Phase

__all__ = [
    "Blueprint",
    "Draws",
    "Learner",
    "Ledger",
    "Lockstep",
    "Metrics",
    "Partway",
    "Phase",
    "PrivateLearner",
    "Samples",
    "SecretDraws",
    "SeededDraws",
    "Stack",
    "Trainee",
    "build_blueprint",
    "build_sampling",
    "evaluate",
    "evaluate_logits",
    "find_device",
    "log_prior",
    "predict",
    "score",
    "steps_of_round",
]
