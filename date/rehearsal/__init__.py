"""All that a training goes through, in minutes, on a sample of the real data: ``python -m date rehearse``."""
