# One cell of the sweep:
#   make -f experiments/mix/sweep.mk cell data.selector=el2n data.fraction=0.2 seed=0
# RUN, SIZE and BIN are those of stages.mk, which makes the signals that all cells read. Each cell
# answers the balanced test, and the one in the mix's proportions into its folder `proportional`.
include experiments/mix/stages.mk
.DEFAULT_GOAL := signals

CELL := $(SWEEP)/cells/$(data.selector)-$(data.fraction)-$(seed)
OPTIONS_coincide := --data.selector.num_clusters=$(CLUSTERS) --data.selector.seed=$(seed)
OPTIONS_semdedup := $(OPTIONS_coincide)
OPTIONS_self_sup := --data.selector.num_clusters=100 --data.selector.seed=$(seed)
OPTIONS_random := --data.selector.seed=$(seed)
CHOICE = $(DATA) --config configs/selectors/$(data.selector).yaml $(OPTIONS_$(data.selector)) \
  --data.fraction=$(data.fraction) --data.signals=$(STORES) \
  --seed_everything=$(seed) --trainer.default_root_dir=$(CELL)
FULL := --trainer.callbacks=coincide_pl.evaluation.Evaluate --trainer.callbacks.full=$(RUN)/all

.PHONY: cell
cell: $(CELL)/results.json $(CELL)/proportional/results.json

$(CELL)/selection.safetensors: $(foreach store,$(READS),$(SWEEP)/$(store)/.sealed)
	$(LIGHTNING) select --config $(HERE)/select.yaml $(CHOICE)

$(CELL)/model/config.json: $(CELL)/selection.safetensors $(RUN)/start/model/config.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(LEARN) $(CHOICE) --data.seed=$(seed) \
	  --model.pretrained=$(RUN)/start/model

$(CELL)/results.json: $(CELL)/model/config.json $(RUN)/all/results.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(READ) --data.test.path=$(RUN)/data/test.json \
	  --model.pretrained=$(CELL)/model $(FULL) --trainer.default_root_dir=$(CELL)

$(CELL)/proportional/results.json: $(CELL)/model/config.json $(RUN)/all/proportional/results.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(READ) --data.test.path=$(RUN)/data/test_mix.json \
	  --model.pretrained=$(CELL)/model $(FULL)/proportional --trainer.default_root_dir=$(@D)
