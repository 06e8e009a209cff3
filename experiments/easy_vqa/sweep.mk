# One cell of the sweep, or the signals that all its cells read:
#   make -f experiments/easy_vqa/sweep.mk cell data.selector=el2n data.fraction=0.2 seed=0
#   make -f experiments/easy_vqa/sweep.mk signals
# A stage whose mark is there is not run again. RUN, SIZE and BIN are those of stages.mk.
include experiments/easy_vqa/stages.mk
.DEFAULT_GOAL := signals

include experiments/cell.mk

CELL := $(SWEEP)/cells/$(data.selector)-$(data.fraction)-$(seed)
OPTIONS_coincide := --data.selector.num_clusters=584 --data.selector.seed=$(seed)
# The states at the last token differ little here: more clusters than these collapse into one.
OPTIONS_semdedup := --data.selector.num_clusters=20 --data.selector.seed=$(seed)
OPTIONS_self_sup := --data.selector.num_clusters=100 --data.selector.seed=$(seed)
OPTIONS_hierarchical_kmeans := --data.selector.num_clusters=[584,58] --data.selector.seed=$(seed)
OPTIONS_xmas := --data.selector.num_clusters=58 --data.selector.seed=$(seed)
OPTIONS_visnec := --data.selector.seed=$(seed)
# No DINOv2 weights are fetched: the tiny CLIP sees the images.
OPTIONS_presel := --data.selector.features=clip_image --data.selector.seed=$(seed)
OPTIONS_random := --data.selector.seed=$(seed)

CHOICE = --config configs/selectors/$(data.selector).yaml $(OPTIONS_$(data.selector)) \
  --data.fraction=$(data.fraction) --data.signals=$(STORES) \
  --seed_everything=$(seed) --trainer.default_root_dir=$(CELL)

IMAGES = $(shell $(BIN)/python -c 'import coincide_pl; print(coincide_pl.EasyVQA().image_root)')

.PHONY: signals cell pictures
signals: $(SWEEP)/reference/.sealed $(SWEEP)/clip/.sealed $(SWEEP)/self_filter/.sealed \
  $(STEPS:%=$(SWEEP)/trajectory-%/.sealed) \
  $(foreach store,$(READS_less) $(ALSO_less),$(SWEEP)/$(store)/.sealed) \
  $(RUN)/all/results.json
cell: $(CELL)/results.json

$(SWEEP)/reference/.sealed: $(RUN)/reference/model/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml --model.signals='$(SIGNALS)' \
	  --data.signals=$(@D) --model.pretrained=$(RUN)/reference/model \
	  --trainer.default_root_dir=$(@D)
	@touch $@

# No CLIP weights are fetched: a tiny one learns captioned shapes for a minute.
$(SWEEP)/captions/captions.json:
	$(BIN)/python $(HERE)/captions.py --output=$(@D) --count=$(CAPTIONS) --statements=0

$(SWEEP)/tiny-clip/config.json: $(SWEEP)/captions/captions.json
	$(LIGHTNING) create-tiny-clip --output=$(@D)-start
	$(BIN)/python experiments/clip.py --pretrained=$(@D)-start --captions=$< --output=$(@D)

$(SWEEP)/clip/.sealed: $(SWEEP)/tiny-clip/config.json
	$(LIGHTNING) predict --config $(HERE)/predict_clip.yaml --data.signals=$(@D) \
	  --model.pretrained=$(<D) --trainer.default_root_dir=$(@D)
	@touch $@

$(SWEEP)/self_filter/.sealed: $(SWEEP)/clip/.sealed $(RUN)/start-target/model/config.json
	$(LIGHTNING) fit --config $(HERE)/self_filter.yaml --data.signals=$(SWEEP)/clip \
	  --model.pretrained=$(RUN)/start-target/model --trainer.default_root_dir=$(@D)
	@touch $@

# easy-VQA has no validation set: a random 1 % of the training questions stand for the tasks of LESS
# and ICONS, the four families.
$(SWEEP)/tasks/tasks.json:
	$(LIGHTNING) select --config $(HERE)/select.yaml --config configs/selectors/random.yaml \
	  --data.selector.seed=3 --data.fraction=0.01 --trainer.default_root_dir=$(@D)
	$(LIGHTNING) subset $(@D) --output=$@

TASKS_MADE := $(SWEEP)/tasks/tasks.json
TASKS = --data.train=LlavaJson --data.train.path=$(TASKS_MADE) --data.train.source_field=source \
  --data.train.image_folder=$(IMAGES)
include experiments/further_passes.mk

$(CELL)/selection.safetensors: $(foreach store,$(READS) $(ALSO),$(SWEEP)/$(store)/.sealed)
	$(LIGHTNING) select --config $(HERE)/select.yaml $(CHOICE)

$(CELL)/model/config.json: $(CELL)/selection.safetensors $(RUN)/start-target/model/config.json
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(CHOICE) --data.seed=$(seed) \
	  --model.pretrained=$(RUN)/start-target/model --trainer.max_epochs=$(EPOCHS)

$(CELL)/results.json: $(CELL)/model/config.json $(RUN)/all/results.json
	$(LIGHTNING) test --config $(HERE)/test.yaml --model.pretrained=$(CELL)/model \
	  --trainer.callbacks=coincide_pl.evaluation.Evaluate --trainer.callbacks.full=$(RUN)/all \
	  --trainer.default_root_dir=$(CELL)

# The pictures in the READMEs; needs a finished sweep, and Chromium.
pictures:
	cp $(SWEEP)/comparison/comparison.png $(HERE)/comparison.png
	cp $(SWEEP)/comparison/pareto.png $(HERE)/pareto.png
	$(LIGHTNING) report $(SWEEP)/cells/coincide-0.2-0 --output=$(SWEEP)/report.html
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,2500 \
	  --screenshot=$(abspath $(HERE)/report.png) file://$(abspath $(SWEEP)/report.html)
