# make train  sets everything up, trains a model for five minutes and separates a piece with it
# make test    sets everything up and runs the tests
# make test-latest   does so with the newest TensorFlow, for the tests that touch it most
# make test-light   checks that a plain installation separates without TensorFlow
# make bench MIDI_DIR=FOLDER   runs the benchmarks on a folder of MIDI files, and writes benchmarks/README.md; add
#              TORCH=PYTHON, the Python of an environment with PyTorch, to compare with it
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= io,dev
TESTS ?=
RUN ?= runs/quickstart
MIDI_DIR ?=
TORCH ?=

.PHONY: train test test-latest test-light lint bench

train: $(VENV)/installed
	@echo "1. Train for 5 minutes on composed pieces, starting from the model in the package (flags/quickstart.flags)."
	@echo "   A validation on other pieces, and the first step, take about a minute more."
	$(VENV)/bin/python train.py --flagfile=flags/quickstart.flags --run_dir=$(RUN)
	@echo "2. Separate a composed piece that was not used in training, and score 12 of them."
	$(VENV)/bin/python separate.py --run_dir=$(RUN)
	@echo "Listen to the mixture and the stems in the folder named above. To train on your own MIDI files, add --midi_dir."

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest $(TESTS)

# Every model in every format; the model in the package; a run and its resumption.
test-latest:
	$(MAKE) --no-print-directory test VENV=.venv-latest EXTRAS=latest,dev \
		TESTS="tests/test_exporting.py::test_every_model_computes_in_every_format_what_keras_computes \
		tests/test_pretrained.py \
		tests/test_training.py::test_a_run_leaves_a_config_a_checkpoint_weights_and_tensorboard_events \
		tests/test_training.py::test_a_resumed_run_goes_on_where_it_stood"

# A plain installation, which has no TensorFlow, separates a second of noise.
test-light:
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/pip install --quiet .
	rm -rf build
	! .venv-light/bin/python -c 'import tensorflow' 2>/dev/null
	cd .venv-light && bin/python -c 'import numpy, soundfile; soundfile.write("noise.wav", numpy.random.randn(44100, 2) / 10, 44100)'
	cd .venv-light && bin/sourcesep_separate noise.wav && test -s separated/noise/drums.wav

# Needs the program fluidsynth, with which the rendering is compared.
bench: $(VENV)/installed
	@test -n "$(MIDI_DIR)" || { echo "make bench needs a folder of MIDI files: make bench MIDI_DIR=FOLDER"; exit 1; }
	$(VENV)/bin/python -m benchmarks --midi_dir=$(MIDI_DIR) --torch_python=$(TORCH)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The virtual environment, by uv in a third of the time of pip, which takes over where uv finds no packages; and where
# apt can install it the FluidSynth library with a full SoundFont.
$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --editable '.[$(EXTRAS)]' \
		|| $(VENV)/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@$(VENV)/bin/python -c 'import fluidsynth' 2>/dev/null || $(MAKE) --no-print-directory libfluidsynth
	touch $@

.PHONY: libfluidsynth
libfluidsynth:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends libfluidsynth3 fluid-soundfont-gm; \
	elif command -v apt-get >/dev/null && command -v sudo >/dev/null; then \
		sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends libfluidsynth3 fluid-soundfont-gm; \
	else \
		echo "FluidSynth is missing. Install it, then run make again:" \
			"Debian, Ubuntu: apt install libfluidsynth3; Fedora: dnf install fluidsynth-libs; macOS: brew install fluid-synth"; \
		exit 1; \
	fi
