"""Started as a script in front of a daemon: ``leash.py PARENT COMMAND...`` becomes COMMAND, which PARENT's end stops.

Linux then sends SIGTERM to the daemon when the process PARENT dies, however that happens. It is a script, and no hook
between fork and exec, for those may hang in a parent with threads; it imports nothing of this package, which is slow.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, and become the command unless the parent has died before that."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == "__main__":
    main()
