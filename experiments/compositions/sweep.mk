# One cell of the sweep:
#   make -f experiments/compositions/sweep.mk cell data.selector=el2n data.fraction=0.2 seed=0
# RUN, SIZE and BIN are those of stages.mk, which makes the signals that all cells read. `option`
# is one of COINCIDE's, such as option=temperature=1, or layers=1, the layers whose activations count.
include experiments/compositions/stages.mk
.DEFAULT_GOAL := signals

data.selector ?= random
data.fraction ?= 0.2
seed ?= 0
option ?=
NAME := $(data.selector)-$(data.fraction)-$(seed)
CELL := $(if $(option),$(SWEEP)/ablations/$(NAME)-$(subst =,-,$(option)),$(CELLS)/$(NAME))
LAYERS := $(patsubst layers=%,%,$(filter layers=%,$(option)))
ifdef WANDB_SWEEP_ID
export WANDB_RESUME := allow  # fit and test are one run of the sweep
endif

# Which stores each method reads.
READS_clip_score := clip
READS_el2n := reference
READS_perplexity := reference
READS_semdedup := reference
READS_d2_pruning := reference
READS_self_sup := reference
READS_self_filter := clip self_filter
READS_coincide := $(if $(LAYERS),layers-$(LAYERS),reference)
OPTIONS_coincide := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed) \
  $(if $(LAYERS),,$(option:%=--data.selector.%))
OPTIONS_semdedup := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed)
OPTIONS_self_sup := --data.selector.num_clusters=100 --data.selector.seed=$(seed)
OPTIONS_random := --data.selector.seed=$(seed)

READS := $(READS_$(data.selector))
STORES := $(foreach store,$(READS),$(SWEEP)/$(store)$(if $(filter self_filter,$(store)),/signals))
space := $(empty) $(empty)
CHOICE = $(DATA) --config configs/selectors/$(data.selector).yaml \
  $(OPTIONS_$(data.selector)) --data.fraction=$(data.fraction) \
  --data.signals=[$(subst $(space),$(comma),$(strip $(STORES)))] \
  --seed_everything=$(seed) --trainer.default_root_dir=$(CELL)

.PHONY: cell
cell: $(CELL)/results.json

# The activations of some layers alone.
$(SWEEP)/layers-$(LAYERS)/.sealed: $(RUN)/reference/model/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml $(DATA) --model.layers='[$(LAYERS)]' \
	  --data.signals=$(@D) --model.pretrained=$(RUN)/reference/model \
	  --trainer.default_root_dir=$(@D)
	@touch $@

$(CELL)/selection.safetensors: $(foreach store,$(READS),$(SWEEP)/$(store)/.sealed)
	$(LIGHTNING) select --config $(HERE)/select.yaml $(CHOICE)

$(CELL)/model/config.json: $(CELL)/selection.safetensors $(RUN)/start-target/model/config.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(CHOICE) --data.seed=$(seed) \
	  --model.pretrained=$(RUN)/start-target/model --trainer.max_epochs=$(EPOCHS)

$(CELL)/results.json: $(CELL)/model/config.json $(RUN)/all/results.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(TEST) --model.pretrained=$(CELL)/model \
	  --trainer.callbacks=coincide_pl.evaluation.Evaluate --trainer.callbacks.full=$(RUN)/all \
	  --trainer.default_root_dir=$(CELL)
