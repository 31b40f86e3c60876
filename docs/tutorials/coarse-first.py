# %% [markdown]
# # Coarse meshes first
#
# At the end you have a model trained with two layers first and eight later. A figure compares
# it with eight layers from the start, at the same cost.
#
# The task is Burgers' equation: from a function at 32 points to the solution at a later time.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt

import ide_transformer as ide
from ide_transformer import training


folder = Path(tempfile.mkdtemp())
jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

# %% [markdown]
# ## What is needed
#
# Two layers over the whole depth are a coarse mesh: each step is four times as long as with
# eight layers. Halfway through training each layer is copied into four shorter ones.
#
# - `training.schedule` says when: two layers until half of the steps, then eight.
# - `model.input_normalization: sphere` normalises the embedding of each token, as a layer norm
#   does. A small state would turn too far in a long step.
# - `training.costs: {transport: 0.01}` adds a small penalty on the motion of the state to the
#   loss. The state then moves little in a layer, so one long step is close to four short ones.
# - `warmup_stable_decay` keeps the learning rate high until the last 30 % of the steps. It is
#   the default with such a schedule. A cosine would have fallen before the refinement.
#
# The embedding and the penalty bring the solutions on both meshes close to each other. Without
# both, a coarse start [made text models
# worse](../results/coarse_first.md#what-explains-it-on-language).

# %%
config = folder / "coarse_first.yaml"
config.write_text("""
name: coarse_first
data: {name: burgers_interval}
model:
  kind: operator_model
  width: 32
  heads: 4
  layers: 8
  context: 32
  std: 0.1
  input_normalization: sphere
optimizer:
  learning_rate: 1.2e-2
  schedule: warmup_stable_decay
  warmup: 50
training:
  steps: 960
  batch_size: 16
  evaluate_every: 50
  evaluate_samples: 128
  checkpoint_every: 960
  costs: {transport: 0.01}
  schedule: [{until: 50%, mesh: {layers: 2}}, {mesh: {layers: 8}}]
""")
coarse_first = ide.train(training.load_config(config), runs=folder)

# %% [markdown]
# ## Eight layers from the start, at the same cost
#
# The first run evaluated the field 4,800 times on a batch: two times a step in its first half,
# eight times in its second. Eight layers from the start make 600 steps for that.

# %%
changes = ["name=fine", "training.schedule=[]", "training.steps=600"]
fine = ide.train(training.load_config(config, changes), runs=folder)

runs = {"2 layers, then 8": coarse_first, "8 layers from the start": fine}
print(f"{'':24}{'steps':>6}{'evaluations':>13}{'relative error':>16}{'seconds':>9}")
for name, run in runs.items():
    end = run.load_summary()
    print(
        f"{name:24}{end['steps']:6}{end['evaluations']:13.0f}"
        f"{end['test_loss']:16.4f}{end['seconds']:9.0f}"
    )

# %% [markdown]
# At the same cost the run that began with two layers has the lower error on test functions.
# This is one seed and one rate; [the results](../results/coarse_first.md) have several seeds
# and tuned rates.
#
# ## What happens at the refinement
#
# At step 480 each layer becomes four with the same weights. The error rises only a little,
# although the step of Euler's method falls from 4 to 1. Most of the error goes at the end of
# both runs, when the rate falls:

# %%
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for (name, run), color in zip(runs.items(), ("#D55E00", "#0072B2"), strict=True):
    lines = [x for x in training.read_metrics(run.metrics) if "validation_loss" in x]
    steps, errors = zip(*((x["step"], x["validation_loss"]) for x in lines), strict=True)
    axes.semilogy(steps, errors, color=color, label=name)
axes.set(title="Error while training", xlabel="optimizer step")
axes.set(ylabel="relative error on validation functions")
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %% [markdown]
# In a terminal, `ide-transformer compare compare/coarse_burgers` makes this comparison with
# several seeds. `ide-transformer train CONFIG --plan evaluations=12000` lists the runs that a
# cost allows for your own configuration.
