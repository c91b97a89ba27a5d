# Generate, convert and verify each dataset, before anything is trained on it.


rule prepare_data:
    output:
        f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{LOGS}/data-{{dataset}}.log",
    localrule: True
    params:
        dataset=lambda wildcards: DATASET_FILES[wildcards.dataset],
    message:
        "preparing dataset {wildcards.dataset}"
    shell:
        "python -m date data verify {params.dataset:q} --output {output:q} 2>&1 | tee {log:q}"
