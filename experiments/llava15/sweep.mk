# One cell of the sweep, or the signals that all its cells read:
#   make -f experiments/llava15/sweep.mk signals
#   make -f experiments/llava15/sweep.mk cell data.selector=el2n data.fraction=0.2 seed=0
# The settings are those of stages.mk.
EXPERIMENT ?= experiments/llava15
include $(EXPERIMENT)/stages.mk
.DEFAULT_GOAL := all-signals

include experiments/cell.mk

# What the methods of this sweep read; others need further passes, or much longer ones.
SIGNALS := [activations,el2n,nll,margin,last_token,mean_token]

CELL := $(RUN)/sweep/cells/$(data.selector)-$(data.fraction)-$(seed)
SEEDED := random semdedup self_sup coincide
CLUSTERS_coincide := --data.selector.num_clusters=$(CLUSTERS)
CLUSTERS_semdedup := --data.selector.num_clusters=$(CLUSTERS)

.PHONY: all-signals cell
all-signals: $(RUN)/sweep/reference/.sealed $(RUN)/sweep/clip/.sealed $(RUN)/sweep/self_filter/.sealed
cell: $(CELL)/lmms_eval/.done

$(RUN)/sweep/reference/.sealed: $(REFERENCE)/config.json
	$(LIGHTNING) predict --config configs/models/reference.yaml --config $(DATA) \
	  --config $(TRAINER) --model.pretrained=$(REFERENCE) --model.dtype=bfloat16 \
	  --model.signals='$(SIGNALS)' --data.signals=$(@D) --trainer.default_root_dir=$(@D) \
	  $(OPTIONS) $(PREDICT_OPTIONS)
	@touch $@

$(RUN)/sweep/clip/.sealed:
	$(LIGHTNING) predict --config configs/models/clip.yaml --config $(DATA) --config $(TRAINER) \
	  --model.pretrained=$(CLIP) --data.signals=$(@D) --trainer.default_root_dir=$(@D) $(OPTIONS)
	@touch $@

$(RUN)/sweep/self_filter/.sealed: $(RUN)/sweep/clip/.sealed $(START)/config.json
	$(LIGHTNING) fit --config $(TARGET) --config configs/models/self_filter.yaml \
	  --config $(DATA) --config $(TRAINER) --model.pretrained=$(START) \
	  --data.signals=$(RUN)/sweep/clip --trainer.accumulate_grad_batches=$(ACCUMULATE) \
	  --trainer.default_root_dir=$(@D) $(OPTIONS) $(FIT_OPTIONS)
	@touch $@

$(CELL)/model/config.json: $(START)/config.json
	$(LIGHTNING) fit --config $(TARGET) --config $(DATA) --config $(TRAINER) \
	  --config configs/trainers/one_epoch.yaml --config configs/selectors/$(data.selector).yaml \
	  $(CLUSTERS_$(data.selector)) \
	  $(if $(filter $(data.selector),$(SEEDED)),--data.selector.seed=$(seed)) \
	  --data.fraction=$(data.fraction) --seed_everything=$(seed) \
	  --data.signals=$(STORES) \
	  --model.pretrained=$(START) --trainer.accumulate_grad_batches=$(ACCUMULATE) \
	  --trainer.default_root_dir=$(CELL) $(OPTIONS) $(FIT_OPTIONS)
