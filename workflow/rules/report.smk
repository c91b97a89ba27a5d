# Tables, figures and the page, from sealed results alone.


rule report:
    input:
        of_all_runs("provenance.json"),
        of_all_runs("metrics.jsonl"),
        of_all_runs("evaluation.json"),
    output:
        f"{REPORT}/index.html",
    log:
        f"{LOGS}/report.log",
    localrule: True
    params:
        tier=SETTINGS.tier,
    message:
        "making the report"
    shell:
        "python -m date report --tier {params.tier:q} --results results --reports reports 2>&1 | tee {log:q}"
