# Judge a trained network every way the catalogue names, in one forward pass.


rule evaluate:
    input:
        provenance=f"{RUN}/{PROVENANCE}",
    output:
        evaluation=f"{RUN}/{EVALUATION}",
        detections=f"{RUN}/{DETECTIONS}",
        # Of a training that no figure shows images of, it says so.
        pictures=f"{RUN}/{PICTURES}",
    log:
        f"{LOGS}/{{training}}-seed{{seed}}.evaluate.log",
    priority: rank("evaluate")
    threads: 1 if TIER.workers == 0 else TIER.workers
    params:
        variants=lambda wildcards: [e.variant for e in CATALOGUE.evaluations_of(wildcards.training)],
        pictured=lambda wildcards: pictured_how(wildcards.training),
        tier=SETTINGS.tier,
        results=subpath(output.evaluation, parent=True),
    message:
        "evaluating {wildcards.training} with seed {wildcards.seed}: {params.variants}"
    shell:
        "trap '' TERM; python -m date evaluate {wildcards.training} --tier {params.tier:q} --seed {wildcards.seed}"
        " --threads {threads} --job --results {params.results:q} 2>&1" + LOGGED
