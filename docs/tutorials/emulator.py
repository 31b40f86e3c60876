# %% [markdown]
# # Learn a simulator, and change its grid
#
# At the end you have a model that learned from simulations, and its errors when it is applied
# to its own outputs on three grids.
#
# The Kuramoto–Sivashinsky equation, `u_t + (u²/2)_x + u_xx + u_xxxx = 0` on a circle, is
# chaotic: waves come, move and merge. The model learns what a function becomes after a time of
# 0.5. The data need exponax: `pip install 'ide_transformer[physics]'`.

# %%
import os
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import ide_transformer as ide
from ide_transformer import training


folder = Path(tempfile.mkdtemp())
os.environ["IDE_TRANSFORMER_CACHE"] = str(folder / "data")
jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))

# %% [markdown]
# ## Local operators with kernels in lengths
#
# Each layer sees the neighbourhood of a point, `W2 * σ(W1 * u)`. Neighbours are at a distance
# `spacing`, whatever the grid is. After each layer the state is projected on non-negative
# values, which keeps a roll-out bounded.

# %%
config = folder / "sivashinsky.yaml"
config.write_text("""
name: sivashinsky
data:
  name: exponax
  options:
    stepper: KuramotoSivashinskyConservative
    length: 60.0
    time: 0.5
    pairs: 100
    samples: 32
    held_out_samples: 8
model:
  kind: operator_model
  options: {modes: 0, output_normalization: free}
  operators:
    - kind: convolutional_feed_forward
      options: {spacing: 6.25e-3, outer_width: 3, std: 0.1}
  normalization: free
  constraint: nonnegative
  activation: relu
  width: 26
  layers: 8
  context: 160
  std: 0.2
optimizer:
  learning_rate: 3.0e-3
  final_learning_rate: 3.0e-5
  warmup: 50
training:
  steps: 800
  batch_size: 20
  evaluate_every: 400
  checkpoint_every: 800
""")
run = ide.train(training.load_config(config), runs=folder / "runs")

# %% [markdown]
# ## Roll it out, on three grids
#
# The model starts with a function that it has not seen, and continues from its own outputs.

# %%
loaded = training.load_model(run.path)
task = training.evaluation_task(loaded, tokens=320)
steps = 12
truth = task.trajectory(steps, 8)
model = ide.compiled(loaded.model)
roll_outs = {}
for points in (80, 160, 320):
    u = truth[0, :, :: 320 // points].astype(np.float32)
    states = [u]
    for _ in range(steps):
        states.append(u := model(u))
    roll_outs[points] = np.stack(states)
    exact = truth[:, :, :: 320 // points]
    differences = np.linalg.norm(roll_outs[points] - exact, axis=-1)
    relative = differences / np.linalg.norm(exact, axis=-1)
    errors = ", ".join(f"{x:.3f}" for x in relative.mean(1)[[1, 5, steps]])
    print(f"{points} points: relative error after 1, 5 and {steps} steps {errors}")

# %% [markdown]
# Training used 160 points. On the other grids the weights are the same operator, up to the
# error of a cubic between points.

# %%
figure, every = plt.subplots(1, 3, figsize=(7.5, 3.4), layout="constrained", sharey=True)
shown = {"simulation": truth, "on 160 points": roll_outs[160], "on 80 points": roll_outs[80]}
for axes, (name, states) in zip(every, shown.items(), strict=True):
    limits = dict(vmin=-3, vmax=3, cmap="RdBu_r", aspect="auto", origin="lower")
    axes.imshow(states[:, 0], extent=(0, 60, 0, steps / 2), **limits)
    axes.set(title=name, xlabel="x")
every[0].set_ylabel("time")
figure.suptitle("A simulation, and the emulator on two grids")

# %% [markdown]
# A chaotic equation forgets where it began, and so does every emulator of it. What counts is
# how long the emulator stays close. [Emulate a simulator](../how-to/emulators.md) has your own
# data, training through several steps, and a benchmark of such models.
