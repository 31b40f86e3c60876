# %% [markdown]
# # Learn on one grid, use on another
#
# At the end you have a model that learned from functions on 32 points, and its errors on
# coarser, finer and clustered points.
#
# The functions follow Burgers' equation, `u_t + u u_x = ν u_xx` on a circle. The model learns
# how one changes in a short time. The data need exponax:
# `pip install 'ide_transformer[physics]'`.

# %%
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ide_transformer as ide
from ide_transformer import training


folder = Path(tempfile.mkdtemp())
os.environ["IDE_TRANSFORMER_CACHE"] = str(folder / "data")
jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))

# %% [markdown]
# ## Tokens are points of the circle
#
# Each token is a point, and attention is an integral over the circle. A position is given by
# waves of the coordinate, `cos 2πkx` and `sin 2πkx`, which every x has. No weight has the size
# of the grid.

# %%
config = folder / "burgers.yaml"
config.write_text("""
name: burgers
data:
  name: burgers
  options: {viscosity: 0.03, time: 0.2, samples: 256, held_out_samples: 32}
model:
  kind: operator_model
  width: 32
  heads: 4
  layers: 3
  context: 32
  std: 0.1
optimizer:
  learning_rate: 1.2e-2
  final_learning_rate: 3.0e-5
  warmup: 50
training:
  steps: 400
  batch_size: 32
  evaluate_every: 200
  checkpoint_every: 400
""")
run = ide.train(training.load_config(config), runs=folder / "runs")
model, _ = ide.load_run(run.path)
print(sum(x.size for x in jax.tree.leaves(model) if hasattr(x, "size")), "weights")

# %% [markdown]
# ## The same weights on other grids
#
# `evaluate_on_meshes` measures the relative error on the same functions at other numbers of
# points. In a terminal the same is
# `ide-transformer evaluate RUN --mesh tokens=20,32,64,128,256`.

# %%
loaded = training.load_model(run.path)
meshes = [ide.Mesh(tokens=n) for n in (20, 24, 32, 64, 128, 256)]
rows = training.evaluate_on_meshes(loaded, meshes)
for row in rows:
    print(f"{row['tokens']:4d} points: relative error {row['loss']:.3f}")

# %% [markdown]
# The error is the same from 24 points, just enough to resolve the functions, up to eight times
# the points of training. So it comes from the model, not from the grid.
#
# ## A look at one of them

# %%
task = training.evaluation_task(loaded, tokens=256)
fine = next(task.held_out(1))
before, after = np.asarray(fine.inputs), np.asarray(fine.targets)

figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
x = np.arange(256) / 256
axes.plot(x, before[0], color="0.75", label="before")
axes.plot(x, after[0], color="black", label="after")
for points, marker in ((32, "o"), (256, None)):
    predicted = model(before[:, :: 256 // points])[0]
    at = np.arange(points) / points
    line = {"ls": "none", "marker": marker, "ms": 4} if marker else {"lw": 1, "ls": "--"}
    axes.plot(at, predicted, color="tab:orange", label=f"predicted on {points} points", **line)
axes.set(title="Burgers' equation, learned on 32 points", xlabel="x", ylabel="u")
figure.legend(frameon=False, loc="outside lower center", ncols=2)

# %% [markdown]
# ## Points that are clustered
#
# Attention must weight each point by the part of the circle that it represents. On a grid all
# parts are equal. On other points a plain softmax counts points instead of length. A `Field`
# brings its points and their quadrature weights. Take 64 of the 256 points, half of them in an
# eighth of the circle:

# %%
random = np.random.default_rng(0)
near, far = np.arange(32), np.sort(random.choice(np.arange(32, 256), 32, replace=False))
chosen = np.concatenate([near, far])
with_weights = ide.TokenDomain.from_points(x[chosen, None], period=(1.0,))
plain = ide.TokenDomain(with_weights.points, period=(1.0,))
for name, domain in (("plain softmax", plain), ("with weights", with_weights)):
    prediction = model(ide.Field(before[:, chosen], domain))
    truth = ide.Field(after[:, chosen], with_weights)
    error = task.loss.measure(prediction, truth)["loss"].value
    print(f"{name}: relative error {error:.3f}")

# %% [markdown]
# The model was never trained on such points. [Operator learning](../results/operators.md) has
# more results, also in the plane, and [Put tokens at points of a
# domain](../how-to/token-domains.md) shows how to make domains.
#
# ## Why it works
#
# On smooth functions attention with quadrature weights converges to the integral. Without them
# it does not.

# %%
attention = model.control(0.0)[0]
directions = jax.random.normal(jax.random.key(0), (2, model.features))


def state(x):
    """A smooth function on the interval, for each feature."""
    return jnp.stack([jnp.sin(3 * x), jnp.cos(2 * x)], axis=1) @ directions


s = jnp.linspace(0, 1, 65)
clustered = s + jnp.sin(2 * jnp.pi * s) / 8
exact = attention(state(s), ide.TokenDomain.simpson(s))[0]
for name, domain in (
    ("plain softmax", ide.TokenDomain(clustered[:, None])),
    ("with weights", ide.TokenDomain.simpson(clustered)),
):
    rate = attention(state(clustered), domain)[0]
    off = jnp.linalg.norm(rate - exact) / jnp.linalg.norm(exact)
    print(f"on clustered points, {name}: {off:.1e} away")
