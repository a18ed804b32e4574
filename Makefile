# One verb each; every verb first brings the environment to the level it needs, which takes no time
# when it is there already. Nothing but Python >= 3.11 and make is assumed.
#   PYTHON       the interpreter that creates the environment
#   VENV         the folder of the environment
#   TORCH_INDEX  another package index for torch, for example one with CUDA builds

PYTHON ?= python3
VENV ?= .venv
export VENV

BIN := $(VENV)/bin
BOOTSTRAP := $(PYTHON) tools/bootstrap.py
CODE := $(wildcard splitformer encoder_service decoder_service client training tools tests models \
	benchmarks)

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-containers up roll down lint format protos docs dev bench train evaluate clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-17s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo:  ## start both services and translate a few sentences
	@$(BOOTSTRAP) server
	@$(BIN)/python tools/demo.py

serve:  ## run both services until Ctrl-C
	@$(BOOTSTRAP) server
	@$(BIN)/splitformer serve

test:  ## run the tests; ARGS goes to pytest
	@$(BOOTSTRAP) test
	@$(BIN)/python -m pytest $(ARGS)

test-containers:  ## test the images and the Compose files with real containers
	@$(BOOTSTRAP) dev
	@$(PYTHON) tools/container_engine.py start || true
	@$(BIN)/python -m pytest -m containers tests/containers $(ARGS); status=$$?; \
		$(PYTHON) tools/container_engine.py stop; exit $$status

up:  ## build the containers of deploy/ and start them; ARGS goes to Compose
	@$(PYTHON) tools/compose.py up $(ARGS)

roll:  ## replace the containers of ARGS, for example decoder, one by one
	@$(PYTHON) tools/compose.py roll $(ARGS)

down:  ## stop and remove those containers; ARGS goes to Compose
	@$(PYTHON) tools/compose.py down $(ARGS)

lint:  ## check style, types, import directions, protos and generated code
	@$(BOOTSTRAP) dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tools/generate_protos.py --check

format:  ## put the code into shape
	@$(BOOTSTRAP) dev
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format --write

protos:  ## regenerate splitformer/v1 from protos/
	@$(BOOTSTRAP) dev
	$(BIN)/python tools/generate_protos.py

docs:  ## redraw the picture and rewrite the generated tables, rules and dashboards
	@$(BOOTSTRAP) dev
	$(BIN)/python -m tools.draw_flow
	$(BIN)/python -m tools.reference_tables
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m tools.slo_rules
	$(BIN)/python -m tools.kubernetes_rules
	$(BIN)/python -m tools.dashboards
	$(BIN)/python -m tools.compose_settings

dev:  ## install everything that working on the code takes
	@$(BOOTSTRAP) dev

bench:  ## run the benchmarks; ARGS goes to them, for example ARGS="decode --quick"
	@$(BOOTSTRAP) dev
	$(BIN)/python -m benchmarks $(ARGS)

train:  ## train the embedded models from public parallel text and a dictionary
	@$(BOOTSTRAP) train
	$(BIN)/python -m training all
	$(BIN)/python -m training g2p all

evaluate:  ## score the embedded models on what they have not seen; ARGS=--quick takes a tenth
	@$(BOOTSTRAP) train
	$(BIN)/python -m training evaluate $(ARGS)
	$(BIN)/python -m training g2p evaluate $(ARGS)

clean:  ## remove caches and build outputs; the environment stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
