# %% [markdown]
# # Train once, choose the steps afterwards
#
# A Transformer of eight layers costs eight layers, whatever the input. An equation is solved
# with as many steps as one wants to pay for. In this tutorial you train one set of weights for
# several numbers of steps, solve it with others, and see when that works and when it does not.
#
# The problem is induction over two hops: find the last place where the present token occurred,
# look at the token after it, and do the same from there. A single layer cannot do it; two hops
# need one look-up after the other, so here depth matters.

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
# `control: chebyshev`, with four terms: as many numbers as in four layers, but a value at every
# depth. `training.meshes` names the numbers of steps; one of them is drawn for each step of
# the optimiser. Two more lines make the limit of many steps exist: the embedded input is
# projected on the sphere, and a transport cost keeps the path through depth short.

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
  transport: 0.01
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
    "training.transport=0",
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
for (name, measured), color in zip(rows.items(), ("#0072B2", "#D55E00"), strict=True):
    accuracies = np.array([row["accuracy"] for row in measured])
    axes.plot(numbers, accuracies, marker="o", color=color, label=name)
axes.set_xscale("log")
axes.set_xticks(numbers, [str(number) for number in numbers])
axes.set_xticks([], minor=True)
axes.set(xlabel="steps in depth", ylabel="accuracy on held-out sequences", ylim=(0.2, 1.03))
axes.legend(frameon=False, loc="lower right")
axes.grid(alpha=0.3)

# %% [markdown]
# The weights that saw several meshes are as good with six steps, which were never drawn, as
# with four or eight; with sixteen they lose a little. Fewer steps cost accuracy by degrees, so
# a user can choose. The weights that saw four steps are good with four steps alone: more steps
# make them worse, because they are the coefficients of one scheme and not of an equation.
#
# Both have the same number of parameters and saw the same batches. The first had 4.5 steps in
# depth on average for each step of the optimiser, the second four.
#
# ## Other schemes
#
# Other schemes are a harder test. If the weights were an equation alone, a scheme of higher
# order would come to the same accuracy, though it was never used in training.

# %%
model = training.load_model(any_depth.path).model
task = training.evaluation_task(training.load_model(any_depth.path))
batch = next(task.held_out(256))
for name, solver in (("Strang(Heun())", ide.Strang()), ("RK4()", ide.RK4())):
    predicted = model.on(ide.Mesh(intervals=8)).with_solver(solver)(batch.inputs).argmax(-1)
    counted = batch.targets >= 0
    print(f"{name:15} with 8 steps: {(predicted == batch.targets)[counted].mean():.3f}")

# %% [markdown]
# They do not: in 1,000 steps of the optimiser the weights learned several meshes of one
# scheme, and only partly their limit. (With the four-step weights they give 0.49 and 0.46.)
# Longer training, finer meshes and a larger transport cost bring the limit closer;
# [Train at any depth](../how-to/any-depth.md) has the options, and
# [the test beds](../results/beds.md) the measurements at length.
