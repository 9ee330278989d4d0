# Each target sets itself up: python3 (3.11 or newer) and make are all it needs.
VENV ?= .venv
PEERS := .venv-peers
FLOORS ?= .venv-floors
PYTHON := $(VENV)/bin/python
SETUP := setup.cfg pyproject.toml

.PHONY: run rlhf test test-floors check notebooks execute bench bench-peers mutation fuzz docs \
	site-check lite-check epub clean

run: $(VENV)/.run  ## policy gradient, TRPO and PPO on CartPole-v1, 5 seeds each
	$(PYTHON) -m minirl compare CartPole-v1 --algorithms policy-gradient trpo ppo \
		--seeds 5 --total-steps 100000 --workers 2 --out results/cartpole

rlhf: $(VENV)/.run  ## the alignment chain on "What is 2x4?", in results/rlhf
	$(PYTHON) -m minirl rlhf --out results/rlhf

test: $(VENV)/.test  ## all tests
	$(PYTHON) -m pytest -n 2 --dist loadfile --ignore=tests/site

test-floors:  ## all tests with the lowest versions that setup.cfg allows, in their own environment
	$(MAKE) --no-print-directory VENV=$(FLOORS) $(FLOORS)/.floors
	$(FLOORS)/bin/python -m pytest -n 2 --dist loadfile --ignore=tests/site

check: $(VENV)/.dev  ## lint, format, types, floors
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports

notebooks: $(VENV)/.notebooks  ## step through the notebooks in JupyterLab
	$(VENV)/bin/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

execute: $(VENV)/.docs  ## every notebook and solution from a clean kernel
	$(PYTHON) notebooks/execute.py

bench: $(VENV)/.run  ## speed as ratios to named bounds; keeps the table of docs/results/speed.md
	$(PYTHON) -m benchmarks.speed.bounds > docs/results/speed-table.tmp
	mv docs/results/speed-table.tmp docs/results/speed-table.md
	cat docs/results/speed-table.md

bench-peers:  ## other libraries on the same tasks; keeps the tables of docs/results/speed-peers.md
	$(MAKE) --no-print-directory VENV=$(PEERS) $(PEERS)/.bench
	$(PEERS)/bin/python -m benchmarks.speed.peers > docs/results/speed-peers-table.tmp
	mv docs/results/speed-peers-table.tmp docs/results/speed-peers-table.md
	cat docs/results/speed-peers-table.md

mutation: $(VENV)/.mutation  ## small faults that the tests must notice, for hours; docs/results/tests.md
	$(PYTHON) -m benchmarks.mutation

fuzz: $(VENV)/.test  ## an hour of attempts to break it; docs/results/tests.md
	$(PYTHON) -m benchmarks.fuzz --minutes 60

docs: $(VENV)/.docs  ## the documentation, in docs/_build/html/index.html
	$(PYTHON) -m sphinx -W --keep-going -q -d docs/_build/doctrees/html -b html docs docs/_build/html

epub: $(VENV)/.docs  ## the same pages as an e-book, docs/_build/epub/minirl.epub
	$(PYTHON) -m sphinx -W --keep-going -q -d docs/_build/doctrees/epub -b epub docs docs/_build/epub

site-check: $(VENV)/.browser  ## tests of the site that make docs built; those in Chromium skip where there is none
	$(PYTHON) -m pytest -n 2 --dist worksteal tests/site

lite-check: $(VENV)/.browser  ## the built site's notebooks in Chromium, with Pyodide from DIST=FOLDER
	$(PYTHON) tests/site/lite_check.py \
		"$(or $(DIST),$(error DIST is empty; pass the folder of a Pyodide distribution: make lite-check DIST=FOLDER))"

clean:
	rm -rf $(VENV) $(PEERS) $(FLOORS) results docs/_build build dist *.egg-info

$(VENV)/bin/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "minirl needs Python 3.11 or newer; python3 is $$(python3 -V)" >&2; exit 1; }
	python3 -m venv $(VENV)

$(VENV)/.run: $(PYTHON) $(SETUP)
	$(PYTHON) -m pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test $(VENV)/.dev $(VENV)/.docs $(VENV)/.browser $(VENV)/.notebooks $(VENV)/.bench \
		$(VENV)/.mutation: \
		$(VENV)/.%: $(PYTHON) $(SETUP)
	$(PYTHON) -m pip install -qq --disable-pip-version-check -e '.[$*]'
	@touch $@

$(VENV)/.floors: $(PYTHON) $(SETUP)
	$(PYTHON) tests/floors.py > $(VENV)/floors.txt
	$(PYTHON) -m pip install -qq --disable-pip-version-check -c $(VENV)/floors.txt -e '.[floors]'
	@touch $@
