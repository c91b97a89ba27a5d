"""``python -m date``."""

import signal

from date.cli import main

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops early, such as `head`, ends the listing quietly

raise SystemExit(main())
