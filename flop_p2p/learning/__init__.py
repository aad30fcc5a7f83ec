"""Local training and evaluation of one site's model."""

from flop_p2p.learning.batches import steps_of_round
from flop_p2p.learning.evaluation import predict
from flop_p2p.learning.metrics import Metrics, evaluate_logits
from flop_p2p.learning.objective import log_prior
from flop_p2p.learning.samples import Samples
from flop_p2p.learning.training import Learner, Phase

__all__ = ["Learner", "Metrics", "Phase", "Samples", "evaluate_logits", "log_prior", "predict", "steps_of_round"]
