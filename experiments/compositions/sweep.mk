# One cell of the sweep:
#   make -f experiments/compositions/sweep.mk cell data.selector=el2n data.fraction=0.2 seed=0
# RUN, SIZE and BIN are those of stages.mk, which makes the signals that all cells read. `option`
# is one of COINCIDE's, or several, such as option=temperature=1+num_clusters=200; layers=1,3 are the
# layers whose activations count. A cell with options answers the validation set.
include experiments/compositions/stages.mk
.DEFAULT_GOAL := signals

include experiments/cell.mk

option ?=
OPTIONS := $(subst +, ,$(option))
NAME := $(data.selector)-$(data.fraction)-$(seed)
CELL := $(if $(option),$(ABLATIONS)/$(subst =,-,$(option))-$(seed),$(CELLS)/$(NAME))
ASKED := $(if $(option),$(VALIDATION),$(TEST))
ALL := $(if $(option),$(ABLATIONS)/all,$(RUN)/all)
LAYERS := $(patsubst layers=%,%,$(filter layers=%,$(OPTIONS)))
OWN := layers-$(subst $(comma),-,$(LAYERS))
READS_coincide := $(if $(LAYERS),$(OWN),reference)
READS_coincide_chosen := reference
READS := $(READS_$(data.selector))
STORE_$(OWN) := $(SWEEP)/$(OWN)
OPTIONS_coincide := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed) \
  $(patsubst %,--data.selector.%,$(filter-out layers=%,$(OPTIONS)))
# The options that did best on the validation set.
OPTIONS_coincide_chosen := $(OPTIONS_coincide) $(CHOSEN:%=--data.selector.%)
OPTIONS_semdedup := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed)
OPTIONS_self_sup := --data.selector.num_clusters=100 --data.selector.seed=$(seed)
OPTIONS_hierarchical_kmeans := --data.selector.seed=$(seed) \
  --data.selector.num_clusters=[$(CLUSTERS),$(shell expr $(CLUSTERS) / 10)]
OPTIONS_visnec := --data.selector.seed=$(seed)
OPTIONS_xmas := --data.selector.seed=$(seed) \
  --data.selector.num_clusters=$(shell expr $(CLUSTERS) / 10)
# No DINOv2 weights are fetched: the tiny CLIP sees the images.
OPTIONS_presel := --data.selector.features=clip_image --data.selector.seed=$(seed)
OPTIONS_random := --data.selector.seed=$(seed)
OPTIONS_balanced := $(OPTIONS_random)
CONFIGS := $(if $(filter balanced,$(data.selector)),$(HERE),configs/selectors)

CHOICE = $(DATA) --config $(CONFIGS)/$(data.selector:%_chosen=%).yaml \
  $(OPTIONS_$(data.selector)) --data.fraction=$(data.fraction) \
  --data.signals=$(STORES) \
  --seed_everything=$(seed) --trainer.default_root_dir=$(CELL)

.PHONY: cell
cell: $(CELL)/results.json

# The activations of some layers alone.
$(SWEEP)/$(OWN)/.sealed: $(RUN)/reference/model/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml $(DATA) --model.layers='[$(LAYERS)]' \
	  --data.signals=$(@D) --model.pretrained=$(RUN)/reference/model \
	  --trainer.default_root_dir=$(@D)
	@touch $@

$(CELL)/selection.safetensors: $(foreach store,$(READS) $(ALSO),$(SWEEP)/$(store)/.sealed)
	$(LIGHTNING) select --config $(HERE)/select.yaml $(CHOICE)

$(CELL)/model/config.json: $(CELL)/selection.safetensors $(RUN)/start-target/model/config.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(CHOICE) --data.seed=$(seed) \
	  --model.pretrained=$(RUN)/start-target/model --trainer.max_epochs=$(EPOCHS)

$(CELL)/results.json: $(CELL)/model/config.json $(ALL)/results.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(ASKED) --model.pretrained=$(CELL)/model \
	  --trainer.callbacks=coincide_pl.evaluation.Evaluate --trainer.callbacks.full=$(ALL) \
	  --trainer.default_root_dir=$(CELL)
