# The experiment, stage by stage. A stage whose mark is there is not run again; one that was
# interrupted goes on where it was. SIZE=demo is `make demo`, SIZE=full the published run, SIZE=quick
# a grid of all methods on slow cores: a quarter of the image tokens, and fewer epochs.
BIN ?= .venv/bin
RUN ?= runs/easy_vqa
SIZE ?= full
HERE := experiments/easy_vqa
LIGHTNING := $(BIN)/lightning

CAPTIONS := 12000
STEPS := 100 200 300 400 500 600
PATCH := 8
ifeq ($(SIZE),demo)
START_EPOCHS := 5
EPOCHS := 2
else ifeq ($(SIZE),quick)
START_EPOCHS := 4
EPOCHS := 2
PATCH := 16
else
START_EPOCHS := 6
EPOCHS := 6
endif

VISION := --vision_hidden_size=64 --vision_num_layers=2 --patch_size=$(PATCH)
SMALL := --hidden_size=64 --num_layers=2 $(VISION)
LARGE := --hidden_size=96 --num_layers=2 $(VISION)
BUDGETS := coincide random all

.PHONY: all
.SECONDARY:
all: $(BUDGETS:%=$(RUN)/%/results.json)
	$(LIGHTNING) compare $(BUDGETS:%=$(RUN)/%) --output=$(RUN)/comparison
	$(LIGHTNING) report $(RUN)/coincide --output=$(RUN)/report.html

$(RUN)/captions/captions.json:
	$(BIN)/python $(HERE)/captions.py --output=$(RUN)/captions --count=$(CAPTIONS)

$(RUN)/tiny-reference/config.json:
	$(LIGHTNING) create-tiny-llava --output=$(@D) $(SMALL)

$(RUN)/tiny-target/config.json:
	$(LIGHTNING) create-tiny-llava --output=$(@D) $(LARGE)

# The common start of all targets, and the reference model's.
$(RUN)/start-%/model/config.json: $(RUN)/tiny-%/config.json $(RUN)/captions/captions.json
	$(LIGHTNING) fit --config $(HERE)/align.yaml --model.pretrained=$(RUN)/tiny-$* \
	  --data.train.path=$(RUN)/captions/captions.json --trainer.max_epochs=$(START_EPOCHS) \
	  --trainer.default_root_dir=$(RUN)/start-$*

# The reference learns from a random tenth of the questions.
$(RUN)/reference/model/config.json: $(RUN)/start-reference/model/config.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml --model.pretrained=$(RUN)/start-reference/model \
	  --config configs/selectors/random.yaml --data.selector.seed=1 --data.fraction=0.1 \
	  --trainer.max_epochs=4 --trainer.default_root_dir=$(RUN)/reference

$(RUN)/signals/.sealed: $(RUN)/reference/model/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml --data.signals=$(RUN)/signals \
	  --model.pretrained=$(RUN)/reference/model --trainer.default_root_dir=$(RUN)/signals
	@touch $@

$(RUN)/coincide/selection.safetensors: $(RUN)/signals/.sealed
	$(LIGHTNING) select --config $(HERE)/select.yaml --data.signals=$(RUN)/signals \
	  --trainer.default_root_dir=$(RUN)/coincide

$(RUN)/coincide/model/config.json: $(RUN)/coincide/selection.safetensors
CHOICE_random := --config configs/selectors/random.yaml
CHOICE_all := --config configs/selectors/all.yaml

$(BUDGETS:%=$(RUN)/%/model/config.json): $(RUN)/%/model/config.json: $(RUN)/start-target/model/config.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(CHOICE_$*) --data.signals=$(RUN)/signals \
	  --model.pretrained=$(RUN)/start-target/model --trainer.max_epochs=$(EPOCHS) \
	  --trainer.default_root_dir=$(RUN)/$*

$(RUN)/%/results.json: $(RUN)/%/model/config.json
	$(LIGHTNING) test --config $(HERE)/test.yaml --model.pretrained=$(RUN)/$*/model \
	  --trainer.default_root_dir=$(RUN)/$*
