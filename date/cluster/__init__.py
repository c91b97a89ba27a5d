"""What Snakemake's main process does besides the rules: it survives failures of Slurm, and locks the clone."""
