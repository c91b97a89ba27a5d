# Evaluations that need no trained network: the paper's networks counted, and NMS on annotations.


rule count_complexity:
    output:
        "results/complexity.json",
    log:
        "logs/complexity.log",
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
        lambda wildcards: f"{RESULTS}/data/{dataset_played(CATALOGUE.annotations[wildcards.annotations].data)}.json",
    output:
        f"{RESULTS}/annotations/{{annotations}}.json",
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


wildcard_constraints:
    annotations="|".join(CATALOGUE.annotations),
