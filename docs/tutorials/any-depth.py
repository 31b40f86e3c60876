# %% [markdown]
# # Train once, choose the steps afterwards
#
# A Transformer of eight layers always computes eight layers. An equation can be solved with as
# few or as many steps as you want. In this tutorial you train one set of weights for several
# numbers of steps, solve it with other numbers, and see when that works and when it does not.
#
# The task is induction over two hops: find the last place where the current token occurred,
# take the token after it, and do the same from there. A single layer cannot do this, because
# the second look-up needs the result of the first. So depth matters here.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import ide_transformer as ide
from ide_transformer import training


folder = Path(tempfile.mkdtemp())
jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

# %% [markdown]
# ## Weights that are a function of depth
#
# An ordinary model has weights for each layer. Here the weights are polynomials in depth,
# `control: chebyshev`, with four terms. They have as many parameters as four layers, but a
# value at every depth. `training.meshes` lists numbers of steps; each optimiser step draws one
# of them. Two more keys make the limit of many steps exist: the embedded input is projected on
# the sphere, and a transport cost keeps the path through depth short.

# %%
config = folder / "any_depth.yaml"
config.write_text("""
name: any_depth
data:
  name: p_hop
  options: {alphabet: 4, hops: 2}
model:
  width: 32
  heads: 4
  depth: 4
  context: 16
  input_normalization: sphere
control: {kind: chebyshev, options: {terms: 4}}
optimizer:
  learning_rate: 3.0e-3
  warmup: 100
training:
  steps: 1000
  batch_size: 64
  evaluate_every: 1000
  checkpoint_every: 1000
  meshes: [2, 4, 8]
  costs: {transport: 0.01}
  sample: 0
""")
any_depth = ide.train(training.load_config(config))

# %% [markdown]
# For comparison, the same model trained with four steps only, without projection and transport
# cost: the ordinary way.

# %%
ordinary_keys = [
    "name=four_steps",
    "training.meshes=[4]",
    "training.costs.transport=0",
    "model.input_normalization=free",
]
four_steps = ide.train(training.load_config(config, ordinary_keys))

# %% [markdown]
# ## Choose the steps
#
# `model.on(ide.Mesh(intervals=n))` is the same model with n steps over the whole depth.
# `evaluate_on_meshes` measures several of them; from a terminal that is
# `python scripts/evaluate.py runs/any_depth --mesh intervals=1,2,3,4,6,8,16`.

# %%
numbers = [1, 2, 3, 4, 6, 8, 16]
meshes = [ide.Mesh(intervals=number) for number in numbers]
rows = {
    run.path.name: training.evaluate_on_meshes(training.load_model(run.path), meshes)
    for run in (any_depth, four_steps)
}
print(f"{'accuracy with':14}" + "".join(f"{number:>7}" for number in numbers) + "  steps")
for name, measured in rows.items():
    print(f"{name:14}" + "".join(f"{row['accuracy']:7.3f}" for row in measured))

# %%
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
names = {"any_depth": "trained with 2, 4, 8 steps", "four_steps": "trained with 4 steps"}
for (name, measured), color in zip(rows.items(), ("#0072B2", "#D55E00"), strict=True):
    accuracies = np.array([row["accuracy"] for row in measured])
    axes.plot(numbers, accuracies, marker="o", color=color, label=names[name])
axes.set_xscale("log")
axes.set_xticks(numbers, [str(number) for number in numbers])
axes.set_xticks([], minor=True)
axes.set(title="One set of weights, any number of steps", ylim=(0.4, 1.03))
axes.set(xlabel="steps in depth", ylabel="accuracy on held-out sequences")
axes.legend(frameon=False, loc="lower right")
axes.grid(alpha=0.3)

# %% [markdown]
# The weights trained on several meshes are as good with six steps, which were never drawn, as
# with four or eight. With sixteen they lose a little. Fewer steps lower the accuracy gradually,
# so you can choose. The weights trained with four steps are good with four steps only. More
# steps make them worse, because they fit one scheme with its step and not an equation.
#
# Both models have the same number of parameters and saw the same batches. For each optimiser
# step the first took 4.5 steps in depth on average, the second four.
#
# ## Other schemes
#
# Other schemes are a harder test. If the weights fitted only the equation, a scheme of higher
# order would have the same accuracy, although it was never used in training.

# %%
model = training.load_model(any_depth.path).model
task = training.evaluation_task(training.load_model(any_depth.path))
batch = next(task.held_out(256))
for name, solver in (("Strang(Heun())", ide.Strang()), ("RK4()", ide.RK4())):
    predicted = model.on(ide.Mesh(intervals=8)).with_solver(solver)(batch.inputs).argmax(-1)
    counted = batch.targets >= 0
    print(f"{name:15} with 8 steps: {(predicted == batch.targets)[counted].mean():.3f}")

# %% [markdown]
# They do not have it: in 1,000 optimiser steps the weights learned several meshes of one
# scheme, and their limit only partly. (With the weights of the four-step model these schemes
# give 0.49 and 0.46.) Longer training, finer meshes and a larger transport cost help; [Train at
# any depth](../how-to/any-depth.md) has the options, and [the benchmark
# tasks](../results/beds.md) have all measurements.
