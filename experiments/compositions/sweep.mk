# One cell of the sweep:
#   make -f experiments/compositions/sweep.mk cell data.selector=el2n data.fraction=0.2 seed=0
# RUN, SIZE and BIN are those of stages.mk, which makes the signals that all cells read. `option`
# is one of COINCIDE's, such as option=temperature=1, or layers=1, the layers whose activations count.
include experiments/compositions/stages.mk
.DEFAULT_GOAL := signals

include experiments/cell.mk

option ?=
NAME := $(data.selector)-$(data.fraction)-$(seed)
CELL := $(if $(option),$(SWEEP)/ablations/$(NAME)-$(subst =,-,$(option)),$(CELLS)/$(NAME))
LAYERS := $(patsubst layers=%,%,$(filter layers=%,$(option)))
READS_coincide := $(if $(LAYERS),layers-$(LAYERS),reference)
READS := $(READS_$(data.selector))
STORE_layers-$(LAYERS) := $(SWEEP)/layers-$(LAYERS)
OPTIONS_coincide := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed) \
  $(if $(LAYERS),,$(option:%=--data.selector.%))
OPTIONS_semdedup := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed)
OPTIONS_self_sup := --data.selector.num_clusters=100 --data.selector.seed=$(seed)
OPTIONS_random := --data.selector.seed=$(seed)

CHOICE = $(DATA) --config configs/selectors/$(data.selector).yaml \
  $(OPTIONS_$(data.selector)) --data.fraction=$(data.fraction) \
  --data.signals=$(STORES) \
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
