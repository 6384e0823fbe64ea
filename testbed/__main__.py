"""`python -m testbed` is the command `testbed`."""

from __future__ import annotations

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports is the end, and not worth a stack trace. What needs more installs its own handler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Whoever started this Python may have held Ctrl-C back while it loaded what it loads before us (cli._quietly).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

from testbed.cli import main

if __name__ == "__main__":
    sys.exit(main())
