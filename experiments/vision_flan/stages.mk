# COINCIDE's Vision-Flan experiment: that of LLaVA-1.5 with other data, 2,500 clusters, and a
# reference that has learned from a random tenth of these data.
HERE := experiments/vision_flan
RUN ?= runs/vision_flan
DATA := configs/data/vision_flan.yaml
CLUSTERS ?= 2500
REFERENCE := $(RUN)/reference/model
include experiments/llava15/stages.mk

CHOICE_coincide += --data.fraction=0.167
CHOICE_random += --data.fraction=0.167

$(RUN)/reference/model/config.json: $(CHECKPOINTS)/tinyllava-2b/config.json
	$(LIGHTNING) fit --config configs/models/tinyllava_2b.yaml --config $(DATA) \
	  --config $(TRAINER) --config configs/trainers/one_epoch.yaml $(CHOICE_random) \
	  --data.fraction=0.1 --data.selector.seed=1 --model.pretrained=$(CHECKPOINTS)/tinyllava-2b \
	  --trainer.accumulate_grad_batches=$(ACCUMULATE) --trainer.default_root_dir=$(RUN)/reference \
	  $(OPTIONS) $(FIT_OPTIONS)
