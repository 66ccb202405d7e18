# `make` alone lists the targets. Each sets up what it needs, from nothing but git, make and Python with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
CSV ?=
PORTRAIT := docs/portrait.jpg
JOB_MODEL := demo/best_model/saved_model.bin
JOB_INPUT := $(if $(CSV),--input="$(CSV)" --limit=3000,--input=demo/fer2013.csv)
JOB_PHOTO = $(if $(CSV),$(PORTRAIT),demo/photo.png)

.DEFAULT_GOAL := help
.PHONY: help setup demo web data job test test-all fuzz lint format docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.run  ## make .venv with all that the toolkit needs

demo: $(VENV)/.predict  ## recognize the face of a portrait with the included model; needs no TensorFlow
	@mkdir -p demo
	$(BIN)/python predict.py --image $(PORTRAIT) --model_path=mixed --output=demo/annotated.png
	@echo 'Look at demo/annotated.png'

web: $(VENV)/.predict  ## open a page in the browser that recognizes live; needs no TensorFlow
	$(BIN)/python serve.py --open=yes

data: $(VENV)/.run  ## get FER2013 from Kaggle, which needs a token, and FER+'s votes, and convert them
	$(PIP) -r requirements-download.txt
	$(BIN)/python convert_fer2013_to_images_and_landmarks.py --download --ferplus=fer2013new.csv

job: $(VENV)/.run  ## the whole job on drawn faces, in about two minutes; on real ones: make job CSV=fer2013.csv
	$(BIN)/python -m ferkit.data.drawn_faces --output=demo/fer2013.csv --photo=demo/photo.png
	$(BIN)/python convert_fer2013_to_images_and_landmarks.py --folder=demo/fer2013_features $(JOB_INPUT)
	$(BIN)/python train.py --train=yes --evaluate=yes --model=A --folder=demo/fer2013_features \
	    --model_path=$(JOB_MODEL) --checkpoint_folder=demo/checkpoints --logs_folder=demo/logs
	$(BIN)/python predict.py --image $(JOB_PHOTO) --model_path=$(JOB_MODEL) --output=demo/annotated.png
	@echo 'Look at demo/annotated.png and demo/best_model/confusion_matrix.png'

test: $(VENV)/.dev  ## run the tests, in five minutes on two cores
	$(BIN)/python -m pytest

test-all: $(VENV)/.dev  ## the slow tests too; on the real faces as well: FER2013_CSV=fer2013.csv make test-all
	$(BIN)/python -m pytest -m ''

fuzz: $(VENV)/.dev  ## bad inputs by the hundred, and commands killed at random moments, counted by kind
	FUZZ=300 KILLS=20 $(BIN)/python -m pytest -m '' -o addopts= tests/test_fuzz.py tests/test_kills.py tests/test_startup.py

lint: $(VENV)/.dev  ## check the style and the types of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## bring the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev  ## write the tables of the documentation: of all flags, and of the results
	$(BIN)/python docs/tables.py
	$(BIN)/python -m experiments.reproduce_results --report

clean:  ## remove .venv and what the demonstration made
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	    || { echo "error: Python 3.10 to 3.12 is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# Without their dependencies, which the file lists completely: one of the packages asks for TensorFlow.
$(VENV)/.predict: requirements-predict.txt $(VENV)/.made
	$(PIP) --no-deps -r requirements-predict.txt
	@touch $@

$(VENV)/.run: requirements.txt requirements-predict.txt requirements-train.txt $(VENV)/.made
	$(PIP) -r requirements.txt
	@touch $@ $(VENV)/.predict

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PIP) -r requirements-dev.txt
	@touch $@
