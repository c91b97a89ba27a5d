# The DAG of the paper: data -> train -> evaluate -> report. Settings: experiments/config.yaml; rules: workflow/rules/.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


# Jobs call `python -m date` with the interpreter that runs Snakemake, from this folder.
workdir: workflow.basedir


os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
sys.path.insert(0, workflow.basedir)


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/targets.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        GROUP_FILES["report"],
    message:
        f"all: {REPORT}/index.html"
