# The experiment, stage by stage. A stage whose mark is there is not run again; one that was
# interrupted goes on where it was. SIZE=full is the whole grid, SIZE=quick the main table
# on a fifth of the data; SEEDS and FRACTIONS make it smaller, JOBS is how many cells run at a time.
BIN ?= .venv/bin
SIZE ?= full
RUN ?= runs/compositions
JOBS ?= 2
HERE := experiments/compositions
LIGHTNING := $(BIN)/lightning

# CLUSTERS is K with the paper's 66 samples a cluster; CHOSEN are COINCIDE's options that did best on
# the validation set (ablations.yaml).
ifeq ($(SIZE),quick)
COUNT := 12000
EVALUATION := 2000
CAPTIONS := 20000
START_EPOCHS := 4
EPOCHS := 4
CLUSTERS := 182
STEPS := 30 60 90 120 150 180
CHOSEN := temperature=1 num_clusters=40
MORE :=
SEEDS ?= [0]
FRACTIONS ?= [0.2]
else
COUNT := 60000
EVALUATION := 4000
CAPTIONS := 60000
START_EPOCHS := 5
EPOCHS := 4
CLUSTERS := 909
STEPS := 150 300 450 600 750 900
CHOSEN := temperature=1 num_clusters=200
MORE := claims
SEEDS ?= [0,1,2,3,4]
FRACTIONS ?= [0.05,0.1,0.2,0.4]
endif

ABLATED ?= $(SEEDS)
REFERENCE_EPOCHS := 8

SMALL := --hidden_size=48 --num_layers=4 --vision_hidden_size=64
LARGE := --hidden_size=96 --num_layers=3 --vision_hidden_size=96
SWEEP := $(RUN)/sweep
CELLS := $(SWEEP)/cells
ABLATIONS := $(SWEEP)/ablations
DATA := --data.train.path=$(RUN)/data/train.json
TEST := --data.test.path=$(RUN)/data/test.json
VALIDATION := --data.test.path=$(RUN)/data/val.json
include experiments/cell.mk
# Every stage has as many threads as a cell of the grid.
THREADS := $(shell echo $$((($$(nproc) + $(JOBS) - 1) / $(JOBS))))
GRID := BIN=$(BIN) SIZE=$(SIZE) RUN=$(RUN) $(BIN)/python experiments/sweep.py --jobs=$(JOBS)

# What the clusters' features are compared with: reference models of other training and size.
OTHERS := untrained aligned target without-tanh
MODEL_untrained := $(RUN)/tiny-reference
MODEL_aligned := $(RUN)/start-reference/model
MODEL_target := $(RUN)/all/model
MODEL_without-tanh := $(RUN)/reference/model
OPTIONS_target := --model.layers=[0,1,2]
OPTIONS_without-tanh := --model.signals='[{class_path: Activations, \
  init_args: {layers: [0,1,2,3], tanh: false}}]'
empty :=
comma := ,

.PHONY: all signals claims comparison ablations
.SECONDARY:
all:
	OMP_NUM_THREADS=$(THREADS) $(MAKE) -f $(HERE)/stages.mk -j $(JOBS) signals $(MORE)
	$(MAKE) -f $(HERE)/stages.mk comparison $(MORE:claims=ablations)
signals: $(RUN)/all/results.json $(SWEEP)/reference/.sealed $(SWEEP)/clip/.sealed \
  $(SWEEP)/self_filter/.sealed $(STEPS:%=$(SWEEP)/trajectory-%/.sealed) \
  $(foreach store,$(READS_less) $(ALSO_less),$(SWEEP)/$(store)/.sealed)
claims: $(RUN)/clusters.md $(RUN)/transfer.md

comparison: signals
	$(GRID) --sweep=$(HERE)/whole.yaml --only='{seed: $(SEEDS)}'
	$(GRID) --sweep=$(HERE)/sweep.yaml --only='{seed: $(SEEDS), data.fraction: $(FRACTIONS)}'
	$(LIGHTNING) compare $(CELLS)/* $(RUN)/all --output=$(RUN)/comparison
	$(LIGHTNING) report $(CELLS)/coincide-0.2-0 --output=$(RUN)/report.html

# The validation set tells which options are the chosen ones.
ablations: signals $(ABLATIONS)/all/results.json
	$(GRID) --sweep=$(HERE)/ablations.yaml --only='{seed: $(ABLATED)}'
	$(LIGHTNING) compare $(ABLATIONS)/* --output=$(RUN)/ablations

# The run on all data once more, on the validation set.
$(ABLATIONS)/all/results.json: $(RUN)/all/results.json
	mkdir -p $(@D)
	cp -r $(<D)/. $(@D)
	rm $@
	$(LIGHTNING) test --config $(HERE)/test.yaml $(VALIDATION) --model.pretrained=$(@D)/model \
	  --trainer.default_root_dir=$(@D)

$(RUN)/data/test.json:
	$(BIN)/python $(HERE)/generate.py --output=$(@D) --count=$(COUNT) --evaluation=$(EVALUATION)

$(RUN)/captions/captions.json:
	$(BIN)/python $(HERE)/captions.py --output=$(@D) --count=$(CAPTIONS)

$(RUN)/tiny-reference/config.json:
	$(LIGHTNING) create-tiny-llava --config $(HERE)/tiny.yaml --output=$(@D) $(SMALL)

$(RUN)/tiny-target/config.json:
	$(LIGHTNING) create-tiny-llava --config $(HERE)/tiny.yaml --output=$(@D) $(LARGE)

# The common start of all targets, and the reference model's.
$(RUN)/start-%/model/config.json: $(RUN)/tiny-%/config.json $(RUN)/captions/captions.json
	$(LIGHTNING) fit --config $(HERE)/align.yaml --model.pretrained=$(RUN)/tiny-$* \
	  --data.train.path=$(RUN)/captions/captions.json --trainer.max_epochs=$(START_EPOCHS) \
	  --trainer.default_root_dir=$(RUN)/start-$*

# The reference learns from a random tenth of the data.
$(RUN)/reference/model/config.json: $(RUN)/start-reference/model/config.json $(RUN)/data/test.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(DATA) \
	  --model.pretrained=$(RUN)/start-reference/model \
	  --config configs/selectors/random.yaml --data.selector.seed=1 --data.fraction=0.1 \
	  --trainer.max_epochs=$(REFERENCE_EPOCHS) --trainer.default_root_dir=$(RUN)/reference

$(RUN)/all/model/config.json: $(RUN)/start-target/model/config.json $(RUN)/data/test.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(DATA) --config configs/selectors/all.yaml \
	  --model.pretrained=$(RUN)/start-target/model --trainer.max_epochs=$(EPOCHS) \
	  --trainer.default_root_dir=$(RUN)/all

$(RUN)/all/results.json: $(RUN)/all/model/config.json
	$(LIGHTNING) test --config $(HERE)/test.yaml $(TEST) --model.pretrained=$(RUN)/all/model \
	  --trainer.default_root_dir=$(RUN)/all

$(SWEEP)/reference/.sealed: $(RUN)/reference/model/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml $(DATA) --model.signals='$(SIGNALS)' \
	  --data.signals=$(@D) --model.pretrained=$(RUN)/reference/model \
	  --trainer.default_root_dir=$(@D)
	@touch $@

# No CLIP weights are fetched: a tiny one learns captioned scenes.
$(SWEEP)/captions/captions.json:
	$(BIN)/python $(HERE)/captions.py --output=$(@D) --count=$(CAPTIONS) --statements=0

$(SWEEP)/tiny-clip/config.json: $(SWEEP)/captions/captions.json
	$(LIGHTNING) create-tiny-clip --output=$(@D)-start --image_size=48 --patch_size=16 --max_length=96
	$(BIN)/python experiments/clip.py --pretrained=$(@D)-start --captions=$< --output=$(@D)

$(SWEEP)/clip/.sealed: $(SWEEP)/tiny-clip/config.json $(RUN)/data/test.json
	$(LIGHTNING) predict --config $(HERE)/predict_clip.yaml $(DATA) --data.signals=$(@D) \
	  --model.pretrained=$(<D) --trainer.default_root_dir=$(@D)
	@touch $@

$(SWEEP)/self_filter/.sealed: $(SWEEP)/clip/.sealed $(RUN)/start-target/model/config.json
	$(LIGHTNING) fit --config $(HERE)/self_filter.yaml $(DATA) --data.signals=$(SWEEP)/clip \
	  --model.pretrained=$(RUN)/start-target/model --trainer.default_root_dir=$(@D)
	@touch $@

# The sources of the training data are the compositions, the tasks of LESS and ICONS the skills of
# the validation set.
DATA_MADE := $(RUN)/data/test.json
TASKS := --data.train.path=$(RUN)/data/val.json --data.train.source_field=skill
include experiments/further_passes.mk

# Claims 1 and 2: clusters against compositions, and the proxy against measured transfer.
$(SWEEP)/other-%/.sealed: $(RUN)/all/results.json $(RUN)/reference/model/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml $(DATA) --data.signals=$(@D) \
	  --model.pretrained=$(MODEL_$*) $(OPTIONS_$*) --trainer.default_root_dir=$(@D)
	@touch $@

$(RUN)/clusters.md: $(SWEEP)/reference/.sealed $(SWEEP)/clip/.sealed \
  $(OTHERS:%=$(SWEEP)/other-%/.sealed)
	$(BIN)/python $(HERE)/clusters.py --data=$(RUN)/data/train.json --signals=$(SWEEP)/reference \
	  --clip=$(SWEEP)/clip --output=$(RUN)/clusters \
	  --others='{$(foreach one,$(OTHERS),$(one): $(SWEEP)/other-$(one)$(comma)) }'

$(RUN)/transfer.md: $(SWEEP)/reference/.sealed $(RUN)/start-target/model/config.json
	$(BIN)/python $(HERE)/transfer.py --data=$(RUN)/data/train.json --signals=$(SWEEP)/reference \
	  --pretrained=$(RUN)/start-target/model --output=$(RUN)/transfer
