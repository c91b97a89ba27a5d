# On Slurm, Snakemake's executor is our own subclass of the plugin's: it outlasts a Slurm that does not answer.
from date.cluster.occupied import occupy


def on_slurm():
    """Say, once work begins, whether its jobs are Slurm's."""
    return workflow.executor_plugin.name == "slurm"


def work_alone(jobs):
    """Raise if another Snakemake is at work in this clone at the same tier, or at what all tiers share."""
    shared = {"complexity"} & {job.rule.name.removeprefix("count_") for job in jobs}
    try:
        for name in [TIER.name, *shared]:
            if (unlocked := occupy(of_paper(Path(".snakemake/date")), name)) is not None:
                print(unlocked, file=sys.stderr)
    except UserError as error:
        raise WorkflowError(str(error))


if workflow.is_main_process:
    from date.cluster.caches import keep_caches
    from date.cluster.executor import select

    select()
    keep_caches(Path(".snakemake/cache"))
    if Path.cwd() != Path(workflow.basedir):
        raise WorkflowError(
            "--directory has no place here: the DAG works in its own clone. Leave it out, or clone again there."
        )
