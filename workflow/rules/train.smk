# Train a network. Its working directory below runs/ is the trainer's own; the rule declares what a sealed run exports.


rule train:
    input:
        manifest=lambda wildcards: f"{RESULTS}/{MANIFESTS}/{dataset_of(wildcards)}.json",
        init=initial_run,
    output:
        provenance=f"{RUN}/{PROVENANCE}",
        metrics=f"{RUN}/{METRICS}",
    log:
        f"{LOGS}/{{training}}-seed{{seed}}.train.log",
    priority: rank("train")
    threads: 1 if TIER.workers == 0 else TIER.workers
    resources:
        runtime=0,  # minutes; a profile sets the limit where there is one
        nodes=1,  # several GPUs lie in one machine, unless a profile says otherwise
        images_per_pass=0,  # all of a process's; a profile sets fewer where a GPU's memory is too small
    params:
        # Another config or other training code makes another run; another comment, table or figure does not.
        *parts.code_parts(),
        *map(section, parts.section_names()),
        modules=own_modules,
        starts_from=starts_from,
        tier=SETTINGS.tier,
        results=subpath(output.provenance, parent=True),
    message:
        "training {wildcards.training} with seed {wildcards.seed}"
    shell:
        # A signal that ends the job is the trainer's to handle: the shell and tee outlive it.
        "trap '' TERM; python -m date train {wildcards.training} --tier {params.tier:q} --seed {wildcards.seed}"
        " --threads {threads} --job {resources.runtime} --images-per-pass {resources.images_per_pass}"
        " --results {params.results:q} 2>&1" + LOGGED
