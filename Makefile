# `make help` lists the targets. Nothing is needed but Python 3.11 or newer, make and a package index.
.DEFAULT_GOAL := help
.PHONY: help demo test slow bench bench-million lint format lock check-deploy docs image image-check sbom audit clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/demo
READY := $(VENV)/ready
TOOLS := $(VENV)/tools
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# `data` holds what `image` holds, as the image does by default; `image` is that without tables.
SBOM ?= data
BENCH ?= worker local_cloud predictions data dead intake
# The tests start some hundred processes: none of them should compile the sources anew.
# Many wait for something a good part of their time: three at once keep two processors busy.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadgroup

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

# The demo needs half of what the tests need, with the same versions: it is installed first, and alone.
$(DEMO_READY): requirements/demo.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Fanout needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV), once: an environment of its own for Python ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "installing the $$(grep -c == $<) packages of $< ..."
	@$(INSTALL) --require-hashes -r $<
	@echo "installing Fanout itself ..."
	@$(INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(READY): requirements/dev.txt $(DEMO_READY)
	@echo "installing what tests and tools need: $< ..."
	@$(INSTALL) --require-hashes -r $<
	@touch $@

# Tools that look at what is deployed; their own requirements do not agree with Fanout's.
$(TOOLS)/ready: requirements/tools.txt
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

demo: $(DEMO_READY) ## Do the main job end to end on a local cloud, on real files
	@$(BIN)/fanout demo $(DEMO)

test: $(READY) ## Run the tests (under 5 minutes)
	@$(PYTEST) -m "not slow"

slow: $(READY) ## Run the tests that take longer (a quarter of an hour)
	@$(PYTEST) -m slow --durations 25

bench: $(READY) ## Measure side by side, on a quiet machine (half an hour; BENCH=worker for one)
	@for one in $(BENCH); do $(BIN)/python -m bench.$$one || exit 1; done

bench-million: $(READY) ## Measure the memory of a worker on 1,000,000 messages (10 minutes)
	@$(BIN)/python -m bench.worker --million

lint: $(READY) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## Put the sources into the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(READY) ## Write requirements/*.txt anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --group dev --extra local --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements/dev.txt
	@$(BIN)/uv pip compile pyproject.toml --group build --extra local --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -c requirements/dev.txt -o requirements/demo.txt
	@$(BIN)/uv pip compile pyproject.toml --extra image --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -c requirements/dev.txt -o requirements/image.txt
	@$(BIN)/uv pip compile pyproject.toml --extra image --extra data --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -c requirements/dev.txt -o requirements/data.txt
	@$(BIN)/uv pip compile pyproject.toml --extra image --extra telemetry --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -c requirements/dev.txt -o requirements/telemetry.txt
	@$(BIN)/uv pip compile --group tools --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements/tools.txt

check-deploy: $(TOOLS)/ready ## Check Terraform's files and the example workflow for known mistakes
	@$(TOOLS)/bin/checkov --config-file deploy/terraform/.checkov.yaml
	@$(TOOLS)/bin/zizmor --offline --quiet deploy/github/deploy.yml

docs: $(READY) ## Write docs/reference.md anew from the code
	@$(BIN)/python -m tests.reference

image: ## Build the container image (needs docker, podman or buildah)
	@for tool in docker podman buildah; do command -v $$tool >/dev/null 2>&1 && exec $$tool build -t fanout .; done; echo "make image needs docker, podman or buildah" >&2; exit 1

image-check: $(READY) ## Build the image and drain a backlog in it (root and buildah; 2 minutes)
	@$(BIN)/python -m pytest -q -p no:randomly --timeout 400 tests/deploy/image/check_image.py

sbom: $(TOOLS)/ready ## Write what the image carries to dist/sbom.json (CycloneDX; SBOM=telemetry for that variant)
	@mkdir -p dist
	@$(TOOLS)/bin/cyclonedx-py requirements --output-reproducible --of JSON -o dist/sbom.json requirements/$(SBOM).txt

audit: $(TOOLS)/ready ## Look up known vulnerabilities of what the image carries
	@$(PYTHON) -m tests.audit

clean: ## Remove what the targets made
	@rm -rf $(VENV) .local-cloud .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
