# COINCIDE's LLaVA-1.5 experiment, stage by stage; `make experiment EXP=llava15` runs all of it.
# A stage whose mark is there is not run again; one that was interrupted goes on where it was.
BIN ?= .venv/bin
RUN ?= runs/llava15
HERE ?= experiments/llava15
LIGHTNING := $(BIN)/lightning
# What starts the processes of predict, select and fit: nothing, for the command does it on one
# machine; on several, torchrun or srun.
LAUNCH ?=

# What lies where; see README.md here.
CHECKPOINTS ?= checkpoints
VICUNA ?= $(CHECKPOINTS)/vicuna-7b-v1.5
CLIP ?= openai/clip-vit-large-patch14-336
PROJECTOR ?= $(CHECKPOINTS)/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5/mm_projector.bin
TINYLLAVA ?= $(CHECKPOINTS)/TinyLLaVA-2.0B
START := $(CHECKPOINTS)/llava-1.5-7b-start
REFERENCE ?= $(CHECKPOINTS)/tinyllava-2b

DATA ?= configs/data/llava15.yaml
TARGET ?= configs/models/llava15_7b_lora.yaml
TRAINER ?= configs/trainers/ddp.yaml
CLUSTERS ?= 10000
# 128 conversations a step: 4 GPUs, 16 each, 2 times.
ACCUMULATE ?= 2
OPTIONS ?=
FIT_OPTIONS ?=
PREDICT_OPTIONS ?=
BUDGETS ?= coincide random all
TASKS ?= vqav2_test,gqa,vizwiz_vqa_val,scienceqa_img,textvqa_val,pope,mme,mmbench_en_dev,mmbench_cn_dev

CHOICE_coincide := --config configs/selectors/coincide.yaml --data.selector.num_clusters=$(CLUSTERS)
CHOICE_random := --config configs/selectors/random.yaml
CHOICE_all := --config configs/selectors/all.yaml

.PHONY: all start signals select fits compare
.SECONDARY:
all: compare
start: $(START)/config.json $(REFERENCE)/config.json
signals: $(RUN)/signals/.sealed
select: $(RUN)/coincide/selection.safetensors
fits: $(BUDGETS:%=$(RUN)/%/model/config.json)

compare: $(BUDGETS:%=$(RUN)/%/lmms_eval/.done)
	$(LIGHTNING) compare $(BUDGETS:%=$(RUN)/%) --output=$(RUN)/comparison
	$(LIGHTNING) report $(RUN)/coincide --output=$(RUN)/report.html

$(START)/config.json:
	$(LIGHTNING) convert $(VICUNA) --vision_tower=$(CLIP) --projector=$(PROJECTOR) --output=$(@D)

$(CHECKPOINTS)/tinyllava-2b/config.json:
	$(LIGHTNING) convert $(TINYLLAVA) --output=$(@D)

$(RUN)/signals/.sealed: $(REFERENCE)/config.json
	$(LAUNCH) $(LIGHTNING) predict --config configs/models/reference.yaml --config $(DATA) \
	  --config $(TRAINER) --model.pretrained=$(REFERENCE) --model.dtype=bfloat16 \
	  --data.signals=$(@D) --trainer.default_root_dir=$(@D) $(OPTIONS) $(PREDICT_OPTIONS)
	@touch $@

$(RUN)/coincide/selection.safetensors: $(RUN)/signals/.sealed
	$(LAUNCH) $(LIGHTNING) select --config $(DATA) $(CHOICE_coincide) --data.signals=$(RUN)/signals \
	  --trainer.default_root_dir=$(RUN)/coincide $(OPTIONS)

$(RUN)/coincide/model/config.json: $(RUN)/coincide/selection.safetensors

$(BUDGETS:%=$(RUN)/%/model/config.json): $(RUN)/%/model/config.json: $(START)/config.json
	$(LAUNCH) $(LIGHTNING) fit --config $(TARGET) --config $(DATA) --config $(TRAINER) \
	  --config configs/trainers/one_epoch.yaml $(CHOICE_$*) --data.signals=$(RUN)/signals \
	  --model.pretrained=$(START) --trainer.accumulate_grad_batches=$(ACCUMULATE) \
	  --trainer.default_root_dir=$(RUN)/$* $(OPTIONS) $(FIT_OPTIONS)

$(RUN)/%/lmms_eval/.done: $(RUN)/%/model/config.json
	$(BIN)/python -m accelerate.commands.launch -m lmms_eval --model llava_hf \
	  --model_args pretrained=$(RUN)/$*/model --tasks $(TASKS) --output_path $(@D)
	@touch $@
