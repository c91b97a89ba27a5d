#!/bin/sh
# snakemake 9.27.1 with pandas 3.1.1 (NumPy 2.4.6): a param that is read from a table of runs by .loc triggers a rerun
# if it is a float, and does not if it is an integer or a boolean.
#
# Snakemake compares values of Python's own types. numpy.float64 is a float, but numpy.int64 is no int and numpy.bool
# is no bool, so these are left out without a warning. The result of the one run in a table is made and is up to date;
# then one cell of the table changes:
#
#     lr (float64) 0.1 -> 0.2             Params have changed since last execution
#     epochs (int64) 12 -> 36             Nothing to be done
#     augment (bool) True -> False        Nothing to be done
#
# Other types that are left out: pathlib.Path, datetime.date, and pydantic's models. Work-around: .item(), or str().
# Seen on x86-64 Linux, Python 3.11, 2026-12-01. Exits with a status other than 0 if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --prefer-binary snakemake==9.27.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
export XDG_CACHE_HOME="$folder/cache"
cat > Snakefile <<'RULES'
import pandas

RUNS = pandas.read_csv("runs.csv", index_col="run")

rule train:
    output:
        "{run}.txt",
    params:
        lr=lambda wildcards: RUNS.loc[wildcards.run, "lr"],
        epochs=lambda wildcards: RUNS.loc[wildcards.run, "epochs"],
        augment=lambda wildcards: RUNS.loc[wildcards.run, "augment"],
    shell:
        "echo {params.lr} {params.epochs} {params.augment} > {output}"
RULES
table() { printf 'run,lr,epochs,augment\nbaseline,%s,%s,%s\n' "$@" > runs.csv; }
expect() {
    table "$1" "$2" "$3"
    venv/bin/snakemake --dry-run baseline.txt > log 2>&1
    grep -o "$4" log
}
table 0.1 12 True
venv/bin/snakemake --cores 1 baseline.txt > log 2>&1
grep "0.1 12 True" baseline.txt
expect 0.2 12 True "Params have changed since last execution"
expect 0.1 36 True "Nothing to be done"
expect 0.1 12 False "Nothing to be done"
