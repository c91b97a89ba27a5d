# Evaluations that need no trained network: the paper's networks counted, and NMS on annotations.


rule count_complexity:
    output:
        f"{ALL_RESULTS}/{COMPLEXITY}",
    log:
        f"{ALL_LOGS}/complexity.log",
    localrule: True
    params:
        # The networks are the paper's at every tier, so only their configs and the code decide.
        identity=networks_digest(),
    message:
        "counting parameters and operations of the paper's networks"
    shell:
        "python -m date complexity --json 2>&1 > {output:q}" + LOGGED


rule nms_recall:
    input:
        lambda wildcards: f"{RESULTS}/{MANIFESTS}/{dataset_played(CATALOGUE.annotations[wildcards.annotations].data)}.json",
    output:
        f"{RESULTS}/{ANNOTATIONS}/{{annotations}}.json",
    log:
        f"{LOGS}/{{annotations}}.log",
    localrule: True
    params:
        gt=lambda wildcards: annotation_file(wildcards.annotations, TIER, SETTINGS),
        ious=lambda wildcards: [f"--iou={iou:g}" for iou in CATALOGUE.annotations[wildcards.annotations].thresholds],
    message:
        "NMS on the annotations: {wildcards.annotations}"
    shell:
        "python -m date data nms-recall --gt {params.gt:q} {params.ious} --json 2>&1 > {output:q}" + LOGGED


# Beside nothing else: it takes all cores. Not part of `all`: `snakemake latency` asks for it, and the report shows it then.
MEASURED = [name for name in load_paper().latency if CATALOGUE.evaluation(name).training in TRAININGS]
MEASURED_SEED = SETTINGS.seeds[0]


rule measure_latency:
    input:
        [f"{RESULTS}/{CATALOGUE.evaluation(name).training}/seed{MEASURED_SEED}/{PROVENANCE}" for name in MEASURED],
    output:
        f"{RESULTS}/{LATENCY}",
    log:
        f"{LOGS}/latency.log",
    threads: workflow.resource_settings.cores or 8  # on Slurm no number of cores is given
    params:
        names=MEASURED,
        tier=SETTINGS.tier,
        seed=MEASURED_SEED,
    message:
        "measuring how long the networks take for an image"
    shell:
        "python -m date latency {params.names} --tier {params.tier:q} --seed {params.seed} --json {output:q} 2>&1"
        " | tee {log:q}"


rule latency:
    input:
        f"{RESULTS}/{LATENCY}",
    localrule: True
    message:
        "latency: {input}"


wildcard_constraints:
    annotations="|".join(CATALOGUE.annotations),
