# Stages of the methods that read several passes of a reference; included by stages.mk or sweep.mk
# of an experiment, after cell.mk. It gives DATA, the options of its training data; DATA_MADE, the
# file that says the data are there; TASKS and TASKS_MADE, the same of the data that stand for the
# tasks of LESS and ICONS; and STEPS, the training steps at which XMAS looks.

# LESS, ICONS and TIVE: one warm-up for all, with LoRA on the reference's start, on a random 5 % of
# the data, four epochs (LESS); gradients at the checkpoint of each.
CHECKPOINTS := 0 1 2 3
GRADIENTS = $(LIGHTNING) predict --config $(HERE)/gradients.yaml --data.signals=$(@D) \
  --model.pretrained=$(RUN)/start-reference/model \
  --model.warm_up=$(SWEEP)/warm-up/checkpoints/epoch-$*.ckpt --trainer.default_root_dir=$(@D)

$(SWEEP)/warm-up/model/config.json: $(RUN)/start-reference/model/config.json $(DATA_MADE)
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(DATA) --config configs/trainers/warm_up.yaml \
	  --config configs/selectors/random.yaml --data.selector.seed=2 --data.fraction=0.05 \
	  --model.pretrained=$(<D) --model.lora.rank=8 --model.lora.alpha=16 --trainer.max_epochs=4 \
	  --trainer.default_root_dir=$(SWEEP)/warm-up

$(CHECKPOINTS:%=$(SWEEP)/gradients-%/.sealed): $(SWEEP)/gradients-%/.sealed: $(SWEEP)/warm-up/model/config.json
	$(GRADIENTS) $(DATA)
	@touch $@

$(CHECKPOINTS:%=$(SWEEP)/task-gradients-%/.sealed): $(SWEEP)/task-gradients-%/.sealed: \
  $(SWEEP)/warm-up/model/config.json $(TASKS_MADE)
	$(GRADIENTS) $(TASKS)
	@touch $@

# XMAS's proxy: the reference's start, finetuned on everything once, and its checkpoints on the way.
$(SWEEP)/proxy/.sealed: $(RUN)/start-reference/model/config.json $(DATA_MADE)
	$(LIGHTNING) fit --config $(HERE)/target.yaml $(DATA) --config configs/selectors/all.yaml \
	  --model.pretrained=$(RUN)/start-reference/model --trainer.max_epochs=1 \
	  --trainer.callbacks=ModelCheckpoint --trainer.callbacks.dirpath=$(@D)/checkpoints \
	  --trainer.callbacks.filename='{step}' --trainer.callbacks.auto_insert_metric_name=false \
	  --trainer.callbacks.every_n_train_steps=$(firstword $(STEPS)) \
	  --trainer.callbacks.save_top_k=-1 --trainer.default_root_dir=$(@D)
	@touch $@

$(SWEEP)/proxy/at-%/config.json: $(SWEEP)/proxy/.sealed
	$(LIGHTNING) export $(SWEEP)/proxy --checkpoint=$(SWEEP)/proxy/checkpoints/$*.ckpt \
	  --output=$(@D)

$(SWEEP)/trajectory-%/.sealed: $(SWEEP)/proxy/at-%/config.json
	$(LIGHTNING) predict --config $(HERE)/predict.yaml $(DATA) --model.signals=[cross_attention] \
	  --data.signals=$(@D) --model.pretrained=$(<D) --trainer.default_root_dir=$(@D)
	@touch $@
