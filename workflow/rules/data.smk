# Generate, convert and verify each dataset, before anything is trained on it.


rule prepare_data:
    output:
        f"{RESULTS}/{MANIFESTS}/{{dataset}}.json",
    log:
        f"{LOGS}/data-{{dataset}}.log",
    localrule: True
    params:
        dataset=lambda wildcards: DATASET_FILES[wildcards.dataset],
    message:
        "preparing dataset {wildcards.dataset}"
    shell:
        "python -m date data verify {params.dataset:q} --output {output:q} 2>&1" + LOGGED


def check_first(jobs):
    """Raise, before any job is submitted, if what the planned jobs read is not there: data and weights, all at once."""
    from date.cluster.beforehand import obstacles
    from date.doctor import first

    trained = {job.wildcards.training for job in jobs if job.rule.name == "train"}
    read = {dataset_of(job.wildcards) for job in jobs if job.rule.name in ("train", "evaluate")}
    read |= {job.wildcards.dataset for job in jobs if job.rule.name == "prepare_data"}
    trainings = [CATALOGUE.training(name) for name in CATALOGUE.trainings if name in trained]
    problems = first([load_dataset(DATASET_FILES[name]) for name in sorted(read)], trainings, TIER)
    if on_slurm():
        requests = [(job.rule.name, job.resources) for job in jobs if not job.is_local]
        problems += obstacles(Path(workflow.basedir), TIER, requests)
    if problems:
        raise WorkflowError("\n".join(["no job was started, since this would stop the work:", *problems]))


onstart:
    if workflow.is_main_process:
        planned = list(workflow.dag.needrun_jobs())
        work_alone(planned)
        check_first(planned)
