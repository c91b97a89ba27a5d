#!/bin/sh
# snakemake 9.27.1: numbers and booleans inside of a mapping or a list below "config" in a profile reach the workflow as
# strings, while the same lines in a configfile keep their types.
#
#     flag: false                          profile False            configfile False
#     train: {epochs: 36, augment: false}  profile '36', 'False'    configfile 36, False
#     seeds: [0, 1]                        profile ['0', '1']       configfile [0, 1]
#
# The string 'False' is true in Python's if, so that what was switched off is on, without a warning. On the command line,
# --config "train={'epochs': 36, 'augment': False}" gives the same strings. Work-around: a configfile named in the profile.
# Seen on x86-64 Linux, Python 3.11, 2026-12-01. Exits with a status other than 0 if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --prefer-binary snakemake==9.27.1
cd "$folder"
export XDG_CACHE_HOME="$folder/cache"
cat > settings.yaml <<'YAML'
flag: false
train: {epochs: 36, augment: false}
seeds: [0, 1]
YAML
mkdir profile
{ echo "config:"; sed 's/^/  /' settings.yaml; } > profile/config.yaml
cat > Snakefile <<'RULES'
print("config:", config["flag"], config["train"], config["seeds"])
print("augmentation:", "on" if config["train"]["augment"] else "off")

rule all:
RULES
expect() { # options, then what the workflow has to see
    options=$1
    shift
    # shellcheck disable=SC2086 - several words
    venv/bin/snakemake --dry-run $options > log 2>&1
    for line in "$@"; do
        grep -F "$line" log
    done
}
expect "--configfile settings.yaml" "config: False {'epochs': 36, 'augment': False} [0, 1]" "augmentation: off"
expect "--profile profile" "config: False {'epochs': '36', 'augment': 'False'} ['0', '1']" "augmentation: on"
