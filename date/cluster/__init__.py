"""What Snakemake's main process does for a run of the DAG beyond the rules: Slurm outlasted, one run at a time."""
