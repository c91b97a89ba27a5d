"""``python -m date``."""

from date.cli import main

raise SystemExit(main())
