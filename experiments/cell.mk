# What a cell of every sweep is given, and which signals each method reads; included by sweep.mk of
# an experiment, after its stages.
data.selector ?= random
data.fraction ?= 0.2
seed ?= 0
ifdef WANDB_SWEEP_ID
export WANDB_RESUME := allow  # fit and test are one run of the sweep
endif

SWEEP := $(RUN)/sweep
SIGNALS := [activations,el2n,nll,margin,last_token,mean_token,mean_image_token,attended_image_token,token_spectrum,last_token_state,nll_without_image,instruction,visual_consistency,response_consistency,bridging_relevance,skill_neurons,nll_without_question]
READS_clip_score := clip
READS_el2n := reference
READS_perplexity := reference
READS_semdedup := reference
READS_d2_pruning := reference
READS_self_sup := reference
READS_self_filter := clip self_filter
READS_coincide := reference
READS_distinct := reference
READS_prism := reference
READS_scal_select := reference
READS_hierarchical_kmeans := reference
READS_data_tailor := reference
READS_visnec := reference
READS_less := gradients-0 gradients-1 gradients-2 gradients-3
READS_icons := gradients-3
READS_tive := gradients-3
READS_dics := reference
READS_magic := reference
# XMAS reads a store for each checkpoint of its proxy, named by the training step.
READS_xmas := $(STEPS:%=trajectory-%)
$(foreach step,$(STEPS),$(eval STORE_trajectory-$(step) := $(SWEEP)/trajectory-$(step)))
READS_presel := reference clip
READS := $(READS_$(data.selector))
# Signals of the tasks' own data, one store for each checkpoint of the warm-up.
ALSO_less := $(READS_less:%=task-%)
ALSO_icons := $(READS_icons:%=task-%)
ALSO := $(ALSO_$(data.selector))
STORE_reference := $(SWEEP)/reference
STORE_clip := $(SWEEP)/clip
STORE_self_filter := $(SWEEP)/self_filter/signals
$(foreach store,$(READS_less),$(eval STORE_$(store) := $(SWEEP)/$(store)))
empty :=
space := $(empty) $(empty)
comma := ,
# The stores as a list for --data.signals.
STORES = [$(subst $(space),$(comma),$(strip $(foreach store,$(READS),$(STORE_$(store)))))]
TARGETS = [$(subst $(space),$(comma),$(strip $(ALSO:%=$(SWEEP)/%)))]
OPTIONS_less = --data.selector.targets=$(TARGETS)
OPTIONS_icons = --data.selector.targets=$(TARGETS) --data.selector.seed=$(seed)
OPTIONS_distinct = --data.selector.seed=$(seed)
OPTIONS_tive = --data.selector.seed=$(seed)
