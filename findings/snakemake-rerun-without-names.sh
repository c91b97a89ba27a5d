#!/bin/sh
# snakemake 9.27.1: the rerun triggers "params" and "input" compare values without their names, so that changes are overlooked
# where every new value also stood somewhere before.
#
# A training with the params augment=True, average=False, clip=False and the input files teacher=a.pth, student=b.pth is made
# and is up to date. Then config.yaml changes:
#
#     augment=True, average=True, clip=False (one of three switches)  Nothing to be done
#     augment=False, average=True, clip=False (two values swapped)    Nothing to be done
#     augment=True, average=True, clip=True (False stands nowhere)    Params have changed since last execution
#     teacher=b.pth, student=a.pth (two files swapped)                Nothing to be done
#     teacher=c.pth, student=b.pth                                    Set of input files has changed since last execution
#
# The result of the old settings stays, and counts as up to date, without a word. Numbers are compared in the same way:
# layers=2, heads=8, depth=8 is the same set as layers=2, heads=8, depth=2. Work-around: a param whose value has the names in
# it, as in average=f"average {config['average']}".
# Seen on x86-64 Linux, Python 3.11, 2026-12-01. Exits with a status other than 0 if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --prefer-binary snakemake==9.27.1
cd "$folder"
export XDG_CACHE_HOME="$folder/cache"
cat > Snakefile <<'RULES'
configfile: "config.yaml"

rule train:
    input:
        teacher=config["teacher"],
        student=config["student"],
    output:
        "result.txt",
    params:
        augment=config["augment"],
        average=config["average"],
        clip=config["clip"],
    shell:
        "echo {input.teacher} {input.student} {params.augment} {params.average} {params.clip} > {output}"
RULES
touch a.pth b.pth c.pth
settings() { printf 'augment: %s\naverage: %s\nclip: %s\nteacher: %s\nstudent: %s\n' "$@" > config.yaml; }
expect() {
    settings "$1" "$2" "$3" "$4" "$5"
    venv/bin/snakemake --dry-run > log 2>&1
    grep -o "$6" log
}
settings true false false a.pth b.pth
venv/bin/snakemake --cores 1 > log 2>&1
grep "a.pth b.pth True False False" result.txt
expect true true false a.pth b.pth "Nothing to be done"
expect false true false a.pth b.pth "Nothing to be done"
expect true true true a.pth b.pth "Params have changed since last execution"
expect true false false b.pth a.pth "Nothing to be done"
expect true false false c.pth b.pth "Set of input files has changed since last execution"
