# Each target makes .venv and installs what it needs, once. Needs Python 3.11 or newer, pip and make.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Processes for tests: as many as there are cores. Each has one torch thread: processes with several wait for each other most of the time.
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN 2> /dev/null || echo 2)
PYTEST = OMP_NUM_THREADS=1 CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest
PARALLEL = -n $(WORKERS) --dist worksteal
# What is long and rare: `make test-PART` runs the tests with the mark PART. What each holds, and why, is in CONTRIBUTING.md.
PARTS := properties accuracy interrupts kills zoo onnx course distributed large fuzz attacks site browser_long
ARGS ?=
FLOORS_PYTHON ?= python3.11
# A folder of wheels that are installed first, such as torch and torchvision for the CPU; for gpu-check, of `make gpu-wheels`
WHEELS ?=

# A browser for test-browser: CHROMIUM=path, or the first of these that is installed.
CHROMIUM ?= $(firstword $(foreach n,chromium chromium-browser google-chrome chrome,$(shell command -v $(n))))

.PHONY: test-floors gpu-check gpu-wheels docs-stored help install quickstart check types test test-all $(PARTS:%=test-%) lint drift test-nb test-py test-browser chromium lab docs bench export clean bench-panels shots lessons slides course test-lab labextension

help:          ## show this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "The virtual environment could not be made. On Debian and Ubuntu: apt-get install python3-venv"; rm -rf .venv; exit 2; }
	@$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.core: pyproject.toml | .venv/bin/python
	@echo "Installing fastai_tl and what it stands on, once: on Linux some 4 GB to fetch and 7 GB of disk, as PyTorch brings CUDA there, else under 1 GB"
	@echo "(PyTorch for CPUs from a folder of wheels: make $(MAKECMDGOALS) WHEELS=folder) ..."
	@$(if $(WHEELS),$(BIN)/python -m pip install --quiet --no-deps $(WHEELS)/*.whl)
	@$(BIN)/python -m pip install --quiet $(if $(WHEELS),--find-links $(WHEELS)) -e .
	@touch $@

.venv/.lab: pyproject.toml | .venv/.core
	@echo "Installing JupyterLab ..."
	@$(BIN)/python -m pip install --quiet -e '.[lab]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.core
	@echo "Installing what tests and docs need ..."
	@$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

install: .venv/.core  ## make .venv and install the package

quickstart: .venv/.core  ## the six steps on real pictures; report and model in quickstart-out/
	@$(BIN)/fastai-tl quickstart --out quickstart-out --force $(ARGS)

check: .venv/.dev  ## lint, notebooks against modules, types, and the fast tests
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/python tools/check_drift.py
	@$(BIN)/python tools/check_types.py
	@$(PYTEST) $(PARALLEL) -qq -m "not medium and not slow and not browser" --cov=fastai_tl --cov-report= && $(BIN)/python -m coverage report --format=total | sed 's/.*/Line coverage of the fast tests: & %/'

test: lint drift types test-lab test-nb test-py  ## everything that must pass before a commit

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

drift: .venv/.dev
	$(BIN)/python tools/check_drift.py

types: .venv/.dev
	$(BIN)/python tools/check_types.py

test-lab: .venv/.dev  ## the side panel: its TypeScript linted, tested, built anew and compared with the bundle in the repository
	@if [ -n "$$CI" ] && ! command -v npm > /dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then echo "Installing Node (once) ..."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm > /dev/null; fi
	$(BIN)/python tools/labextension.py check

labextension: .venv/.dev  ## after a change of the side panel's TypeScript: build its bundle
	$(BIN)/python tools/labextension.py build

test-nb: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test nbs/api --n-workers $(WORKERS)

test-py: .venv/.dev chromium  ## pytest, and the panels in JupyterLab, Notebook 7 and Voila with real clicks
	$(PYTEST) $(PARALLEL) -m "not slow" --durations=10

test-browser: .venv/.dev chromium  ## of these, those in a browser
	$(PYTEST) tests/browser -m "not slow"

chromium:
	@if [ -n "$(CHROMIUM)" ]; then command -v "$(CHROMIUM)" > /dev/null || { echo "CHROMIUM=$(CHROMIUM): there is no such program."; exit 2; }; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then echo "Installing Chromium, for the tests in a browser (once) ..."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null; \
	else echo "The tests in a browser need Chromium. Install it, or name the one you have: make $(MAKECMDGOALS) CHROMIUM=/path/to/chromium"; exit 2; fi

test-all: test $(PARTS:%=test-%)  ## the long and rare tests, too, part by part: test-kills, test-course …

# Each in a process of its own, one after the other where tests take all cores or much memory.
$(filter-out test-zoo test-interrupts,$(PARTS:%=test-%)): test-%: .venv/.dev chromium
	$(PYTEST) -m $* --durations=10

test-zoo test-interrupts: test-%: .venv/.dev
	$(PYTEST) $(PARALLEL) -m $* --durations=10

.venv-floors/.ready: pyproject.toml tools/floors.py
	@$(FLOORS_PYTHON) -m venv .venv-floors || { echo "$(FLOORS_PYTHON) makes no environment. Name a Python 3.11: make test-floors FLOORS_PYTHON=/path/to/python3.11"; exit 2; }
	@$(FLOORS_PYTHON) tools/floors.py > .venv-floors/constraints.txt
	@echo "Installing the lowest versions that pyproject.toml allows (torch is large; a few minutes, 7 GB, once) ..."
	@.venv-floors/bin/python -m pip install --quiet --upgrade pip
	@.venv-floors/bin/python -m pip install --quiet -c .venv-floors/constraints.txt -e '.[test,lab]'
	@touch $@

test-floors: .venv-floors/.ready  ## the fast tests with the lowest versions that pyproject.toml allows, in .venv-floors
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest $(PARALLEL) -m "not medium and not slow and not browser"

gpu-check:     ## six minutes on a GPU, with PYTHON as it is and WHEELS=folder of gpu-wheels; benchmarks/results/gpu.json
	$(PYTHON) -W ignore tools/gpu_check.py $(if $(WHEELS),--wheels $(WHEELS)) $(ARGS)

gpu-wheels: .venv/.core  ## a folder of wheels, 40 MB, for gpu-check on a machine without a network: WHEELS=folder
	$(BIN)/python tools/gpu_wheels.py $(or $(WHEELS),_gpu_wheels)

lab: .venv/.lab  ## open JupyterLab in this environment
	$(BIN)/jupyter lab --LabServerApp.extra_labextensions_path=labextension/dist

docs: .venv/.dev  ## build the documentation site into _site/: executes what has changed
	$(BIN)/python tools/build_docs.py

docs-stored: .venv/.dev  ## the same with the outputs that notebooks hold; a minute or two
	$(BIN)/python tools/build_docs.py --stored

bench: .venv/.dev  ## measured comparisons; tables and JSON in benchmarks/out/
	$(BIN)/python benchmarks/quickstart_seeds.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/evaluate.py
	$(BIN)/python benchmarks/compare.py

bench-panels: .venv/.dev chromium  ## what panels cost: training watched and not, and time to appear
	CHROMIUM="$(CHROMIUM)" $(BIN)/python benchmarks/panels.py

shots: .venv/.dev chromium  ## the pictures of panels in docs/images, from the tests in a browser
	rm -rf _shots && FTL_SHOTS="$(CURDIR)/_shots" CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest tests/browser -k "test_freeze_panel or workbench or test_tabs"
	cp _shots/freeze-used.png docs/images/freeze-panel.png && cp _shots/workbench-6_light_1200.png docs/images/workbench.png && cp _shots/side-layers_light.png docs/images/side-panel.png && rm -rf _shots

course: .venv/.lab  ## the lessons, copied into course/ (what is there stays), in JupyterLab
	@$(BIN)/fastai-tl lessons copy course
	$(BIN)/jupyter lab --LabServerApp.extra_labextensions_path=labextension/dist course/0_setup.ipynb

lessons: .venv/.dev  ## after editing a lesson: the student copies that the package ships
	$(BIN)/python tools/make_lessons.py

slides: .venv/.dev  ## slides from the lessons, into _slides/
	$(BIN)/python tools/make_slides.py

export: .venv/.dev  ## after editing a notebook: format the code, write modules and README
	$(BIN)/ruff format .
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/make_lessons.py

clean:  ## remove what was built, but not .venv
	rm -rf _proc _site _slides build dist quickstart-out .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
