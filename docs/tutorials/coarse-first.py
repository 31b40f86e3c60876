# %% [markdown]
# # Coarse meshes first
#
# A numerical analyst solves on a coarse mesh first and refines. Here the mesh is one in depth,
# and it is refined while the weights are learned: two layers over the whole depth, which become
# eight after half of the steps. In this tutorial you train such a model, see what happens at
# the refinement, and compare it with eight layers from the start at the same cost.
#
# The task is Burgers' equation: from a function on 32 points to the solution at a later time.

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
# - `training.refine` gives the meshes: two intervals from step 0 on, eight after half of the
#   steps. An interval of the first mesh is as long as four of the second, since the depth T
#   stays.
# - The learning rate must still be high when the fine mesh begins. `warmup_stable_decay` keeps
#   it until the last 30 % of the steps; it is the default wherever `refine` is given. A cosine
#   has fallen by then.
# - Both meshes need solutions that are close to each other. The embedded input on the sphere
#   and the transport cost see to that.

# %%
config = folder / "coarse_first.yaml"
config.write_text("""
name: coarse_first
data: {name: burgers_interval}
model:
  kind: operator_model
  width: 32
  heads: 4
  depth: 8
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
  refine: {0: 2, 0.5: 8}
""")
coarse_first = ide.train(training.load_config(config), runs=folder)

# %% [markdown]
# ## The same cost, and eight layers all the time
#
# The run above has made 2 evaluations of the field in each of 480 steps, and 8 in each of the
# other 480: 4,800 in all. Eight layers from the start may make 600 steps for that.

# %%
changes = ["name=fine", "training.refine={}", "training.steps=600"]
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
# That is one seed, and one rate for both;
# [the page of results](../results/coarse_first.md) has several seeds and tuned rates.
#
# ## What happens at the refinement
#
# Each layer becomes four of a quarter of its length, and the state of the optimizer goes with
# it, at step 480. The error on validation functions does not jump
# there, although Euler's method goes from h = 4 to h = 1. Most of the error goes when the rate
# falls, at the end of both runs:

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
# From the command line the same comparison is `python scripts/compare.py
# configs/compare/coarse_burgers.yaml`, and `python scripts/train.py CONFIG --plan
# evaluations=12000` lists the runs of a cost for a configuration of your own. Functions may
# also be given at fewer points first: `refine: {0: {intervals: 2, tokens: 16}, 0.5: {intervals:
# 8, tokens: 32}}`.
