"""Every error that a user can meet, each with the exit code of the command line.

    FlopError             1   base class, never raised itself
    ├── ConfigError       3   a setting or a file of settings is wrong
    ├── DataError         4   a data set cannot be read, or a partition leaves a site empty
    ├── TopologyError     5   a graph, schedule or mixing matrix cannot be used
    ├── SplitError        6   the split into body and head is wrong
    ├── ModelError        7   a model cannot be built or its weights cannot be loaded
    ├── TrainingError     8   training diverged or cannot go on
    ├── RunError          9   a run directory cannot be written, resumed or read
    ├── IdentityError    10   a key or a signature is missing, wrong or unsafely kept
    ├── FederationError  11   two sites hold different federations, or a revision cannot be adopted
    ├── TransportError   12   an address cannot be used, or a neighbour cannot be reached
    ├── WireError        13   a message is malformed, foreign, replayed or altered; a node drops it and goes on
    ├── NodeError        14   a node cannot run or cannot be asked: its state directory, its checkpoints, its socket
    ├── EgressError      15   the egress log cannot be written, or is not what was written
    ├── PreflightError   16   a check of `flop-p2p preflight` failed
    └── Interrupted     130   stopped with Ctrl-C; what there is was kept

Exit code 2 is a wrong command line, 1 an error that we did not foresee. A message is one line that says
what is wrong, where, and how to mend it.
"""


class FlopError(Exception):
    """Base of all errors of flop-p2p. ``str(error)`` is one line for the user."""

    exit_code = 1


class ConfigError(FlopError):
    """A setting, or a file of settings, is wrong."""

    exit_code = 3


class DataError(FlopError):
    """A data set cannot be read, or cannot be split over the sites as asked."""

    exit_code = 4


class TopologyError(FlopError):
    """A graph, a schedule or a mixing matrix cannot be used."""

    exit_code = 5


class SplitError(FlopError):
    """A model cannot be split into body and head as asked."""

    exit_code = 6


class ModelError(FlopError):
    """A model cannot be built, or its weights cannot be loaded."""

    exit_code = 7


class TrainingError(FlopError):
    """Training diverged or cannot go on."""

    exit_code = 8


class RunError(FlopError):
    """A run directory cannot be written, resumed or read."""

    exit_code = 9


class IdentityError(FlopError):
    """A key or a signature is missing, wrong or unsafely kept."""

    exit_code = 10


class FederationError(FlopError):
    """Two sites hold different federations, or a revision of one cannot be adopted."""

    exit_code = 11


class TransportError(FlopError):
    """An address cannot be used, or a neighbour cannot be reached."""

    exit_code = 12


class WireError(FlopError):
    """A message or frame is malformed, foreign, replayed or altered. A node drops it, counts it and goes on."""

    exit_code = 13


class NodeError(FlopError):
    """A node cannot run, or a running one cannot be asked."""

    exit_code = 14


class EgressError(FlopError):
    """The egress log cannot be written, or is not what was once written."""

    exit_code = 15


class PreflightError(FlopError):
    """A check before the start failed."""

    exit_code = 16


class Interrupted(FlopError):  # noqa: N818 - not an error of the program
    """Stopped with Ctrl-C (or SIGTERM) after what there is was kept."""

    exit_code = 130
