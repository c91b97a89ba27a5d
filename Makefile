# make demo   set up, then OneNet and DATE-F learn on generated scenes; ends with the path of the report
# make test   set up, then all tests but those on Slurm, in two processes; ONLY=timed for those with that mark alone
# make test-slurm   set up, then the tests on a real Slurm cluster of four nodes, which they install and start; needs root
# make lint   set up, then format, lint, spelling and type checks
# make setup  the virtual environment in .venv alone
# make record the results behind reports/mini, without detections, as reports/mini/results.tar.xz; TIER=bccd for another tier
# make record-after-date  the results behind the table of examples/after-date, its three trainings' at mini
# make lock   renew requirements.lock after a change of pyproject.toml (needs the registry)

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(abspath $(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slurm lint setup record record-after-date lock

demo: setup
	snakemake --profile workflow/profiles/local --config tier=demo -- all
	@python -m date report --tier demo --where

# Two workers, one thread each; a file's tests share what they train, so they stay together, and the longest files come first.
test: setup
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(ONLY),-m "$(ONLY)")

test-slurm: setup
	python -m pytest tests/slurm -m slurm

lint: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	codespell
	mypy

setup: $(STAMP)

$(STAMP): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; install Python 3.11 or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is not Python 3.11; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV) || { echo "error: Python's venv module is missing; on Debian or Ubuntu: apt install python3.11-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@touch $@

# The same bytes for the same results. Pictures hold images, and only generated ones are ours to give away.
PACK := tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --exclude=detections.npz

record: TIER ?= mini
record:
	$(PACK) $(if $(filter mini,$(TIER)),,--exclude=pictures.json) results/complexity.json results/$(TIER) | xz -9e > reports/$(TIER)/results.tar.xz

record-after-date:
	$(PACK) results/mini/date_f_stop-* results/mini/date_f_fall-* results/mini/date_f_stop_fall-* | xz -9e > examples/after-date/results.tar.xz

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile pyproject.toml --extra dev --extra onnx --no-annotate --generate-hashes --python-version 3.11 \
		--python-platform x86_64-unknown-linux-gnu --custom-compile-command "make lock" --quiet --output-file requirements.lock
	rm -r $(VENV)-lock
