# Every target makes .venv first and needs nothing but python3 and a package index.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2

.PHONY: help demo cpp test test-full test-matrix arm64 lint format bench results report docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       export SMAT, track a scene, measure against PyTorch"
	@echo "make test       the test-suite; make test-full adds the long runs"
	@echo "make test-matrix the wheel in clean environments of every Python found here"
	@echo "make arm64      bundles on an emulated Arm processor, boxes beside this machine's (slow; BUNDLES=\"...\")"
	@echo "make cpp        the C++ example, into out/cpp; examples/cpp/packages.sh installs what it needs"
	@echo "make lint       ruff, mypy --strict, import contracts, workflows, containers"
	@echo "make bench      speed and memory of every target against PyTorch, interleaved in one run"
	@echo "make results    the same of two trackers into results/MACHINE, and the page of all machines (docs/results.md)"
	@echo "make report     one page, out/report.html, from the results under out/"
	@echo "make docs       the documentation site, out/site/index.html; a broken link is an error"
	@echo "make clean      remove what these made"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps open_clip_torch  # its file of CLIP's merges
	@touch $@

demo: $(READY)
	$(BIN)/edgetrack export smat --target openvino --overwrite
	$(BIN)/edgetrack track smat-openvino-fp32 synthetic:drift --output out/demo.csv --video out/demo.mp4 --overwrite
	$(BIN)/edgetrack bench smat-openvino-fp32 --duration 4 --output out/demo.json --overwrite

cpp: $(READY)
	cmake -S examples/cpp -B out/cpp -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build out/cpp --parallel

# By file, for loadgroup groups nothing under pytest 9.2 (pytest-xdist issue 1386); long files first, as tests/conftest.py has them.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(READY)
	$(PYTEST) -m "not full"

test-full: $(READY)
	$(PYTEST) --hypothesis-profile search

test-matrix: $(READY)
	$(BIN)/python tests/matrix.py

arm64: $(READY)
	$(BIN)/python tests/arm64.py $(or $(BUNDLES),$(wildcard out/*-onnx-* out/*-openvino-*))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/actionlint
	$(BIN)/hadolint docker/*/Dockerfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/edgetrack export smat --target torch --overwrite
	$(BIN)/edgetrack export smat --target openvino --overwrite
	$(BIN)/edgetrack export smat --target onnx --overwrite
	$(BIN)/edgetrack bench smat-openvino-fp32 smat-openvino-fp32@bf16 smat-onnx-fp32 \
		--duration 20 --iterations 300 --output out/bench.json --overwrite

results: $(READY)
	@test -n "$(MACHINE)" || { echo "make results MACHINE=name: lower-case letters, digits and hyphens" && exit 2; }
	for tracker in smat nanotrack_v2; do \
		for target in openvino onnx; do \
			$(BIN)/edgetrack export $$tracker --target $$target --overwrite \
				$$(test $$tracker = smat || echo --weights untrained) || exit; \
		done; \
		$(BIN)/edgetrack bench $$tracker-openvino-fp32 $$tracker-onnx-fp32 --duration 20 --iterations 300 \
			--output "results/$(MACHINE)/$$(echo $$tracker | tr _ -).json" --overwrite || exit; \
	done
	$(BIN)/edgetrack report --leaderboard results --output out/leaderboard.html --overwrite

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

report: $(READY)
	$(BIN)/edgetrack report out --output out/report.html --overwrite $(if $(DATASET),--dataset '$(DATASET)')

clean:
	rm -rf .venv out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
