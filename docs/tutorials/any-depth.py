# %% [markdown]
# # Train once, choose the steps afterwards
#
# At the end you have one set of weights that you can solve with several numbers of steps. You
# see with which numbers and schemes this works.
#
# The task is induction over two hops: find the last place where the current token occurred,
# take the token after it, and do both again. The second look-up needs the result of the first,
# so a single layer cannot do it.

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
# The weights are polynomials in depth, `control: chebyshev`. Four terms have as many parameters
# as four layers, and a value at every depth. Each optimiser step draws a number of steps from
# `training.schedule`.
#
# Two more keys let solutions converge when steps get shorter. `input_normalization: sphere`
# normalises the embedding of each token. `costs: {transport: 0.01}` adds a small penalty on the
# motion of the state to the loss.

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
  layers: 4
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
  schedule: [{meshes: [{layers: 2}, {layers: 4}, {layers: 8}]}]
  costs: {transport: 0.01}
  sample: 0
""")
any_depth = ide.train(training.load_config(config))

# %% [markdown]
# For comparison, train the model in the ordinary way: always four steps, without these two
# keys.

# %%
ordinary_keys = [
    "name=four_steps",
    "training.schedule=[{meshes: [{layers: 4}]}]",
    "training.costs.transport=0",
    "model.input_normalization=free",
]
four_steps = ide.train(training.load_config(config, ordinary_keys))

# %% [markdown]
# ## Choose the steps
#
# `model.on(ide.Mesh(layers=n))` is the same model with n steps over the whole depth.
# `evaluate_on_meshes` measures several of them. In a terminal the same is
# `ide-transformer evaluate runs/any_depth --mesh layers=1,2,3,4,6,8,16`.

# %%
numbers = [1, 2, 3, 4, 6, 8, 16]
meshes = [ide.Mesh(layers=number) for number in numbers]
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
# with four or eight. With sixteen they lose a little. With fewer the accuracy falls gradually,
# so you can choose. The other weights are best with four steps and worse with any other number,
# because they fit one scheme with its step and not an equation.
#
# ## Other schemes
#
# If the weights fitted only the equation, a scheme of higher order would have the same accuracy
# without any training.

# %%
model = training.load_model(any_depth.path).model
task = training.evaluation_task(training.load_model(any_depth.path))
batch = next(task.held_out(256))
for name, solver in (("Strang(Heun())", ide.Strang()), ("RK4()", ide.RK4())):
    otherwise = model.with_solver(solver).on(ide.Mesh(layers=8))
    predicted = otherwise(batch.inputs).argmax(-1)
    counted = batch.targets >= 0
    print(f"{name:15} with 8 steps: {(predicted == batch.targets)[counted].mean():.3f}")

# %% [markdown]
# These schemes do not have it. The weights learned several meshes of one scheme, and their
# limit only partly. [Train at any depth](../how-to/any-depth.md) says what helps, and [the
# benchmark tasks](../results/beds.md) have all measurements.
