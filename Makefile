# `make` alone lists the targets. Each sets up what it needs, from nothing but git, make and Python with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CSV ?=
PORTRAIT = $(VENV)/lib/python3*/site-packages/skimage/data/astronaut.png
JOB_MODEL := demo/best_model/saved_model.bin
JOB_INPUT := $(if $(CSV),--input="$(CSV)" --limit=3000,--input=demo/fer2013.csv)
JOB_PHOTO = $(if $(CSV),$(PORTRAIT),demo/photo.png)

.DEFAULT_GOAL := help
.PHONY: help setup demo job test lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.run  ## make .venv with all that the toolkit needs

demo: $(VENV)/.run  ## recognize the face of a portrait with the model that is shipped
	@mkdir -p demo
	$(BIN)/python predict.py --image $(PORTRAIT) --model_path=pretrained/saved_model.bin --output=demo/annotated.png
	@echo 'Look at demo/annotated.png'

job: $(VENV)/.run  ## the whole job on drawn faces, in about two minutes; on real ones: make job CSV=fer2013.csv
	$(BIN)/python drawn_faces.py --output=demo/fer2013.csv --photo=demo/photo.png
	$(BIN)/python convert_fer2013_to_images_and_landmarks.py --output=demo/fer2013_features $(JOB_INPUT)
	$(BIN)/python train.py --train=yes --evaluate=yes --model=A --folder=demo/fer2013_features \
	    --save_model_path=$(JOB_MODEL) --checkpoint_folder=demo/checkpoints --logs_folder=demo/logs
	$(BIN)/python predict.py --image $(JOB_PHOTO) --model_path=$(JOB_MODEL) --output=demo/annotated.png
	@echo 'Look at demo/annotated.png and demo/best_model/confusion_matrix.png'

test: $(VENV)/.dev  ## run the tests; on a slice of the real faces too: FER2013_CSV=fer2013.csv make test
	$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## check the code's style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## bring the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and what the demonstration made
	rm -rf $(VENV) demo .pytest_cache .ruff_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	    || { echo "error: Python 3.10 to 3.12 is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: requirements.txt $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
