# %% [markdown]
# # A classifier as a controlled system
#
# At the end you know which layer of a classifier the loss feels, and which smallest push makes
# it see another digit.
#
# Training is optimal control: the state u(t) follows an equation, the weights θ(t) are its
# controls, and the loss is what the end costs.

# %%
import tempfile
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ide_transformer as ide
from ide_transformer import contrib, dynamics, training


config = Path(tempfile.mkdtemp()) / "digits.yaml"
config.write_text("""
name: digits
data:
  name: digits
model:
  kind: image_classifier
  width: 64
  heads: 4
  layers: 4
  patch: 2
  class_token: false
  bias: true
  std: 0.1
  dropout: 0.1
optimizer:
  learning_rate: 2.0e-3
  warmup: 50
training:
  steps: 500
  batch_size: 64
  evaluate_every: 500
  checkpoint_every: 500
""")
run = ide.train(training.load_config(config))
loaded = training.load_model(run.path)
model, task = loaded.model, training.evaluation_task(loaded)
images, digits = next(task.held_out(128, samples=128))[:2]

# %% [markdown]
# ## Which layer the loss feels
#
# The costate p(t) = ∂J/∂u(t) says how the loss J changes with the state at depth t. It gives
# the slope of the Hamiltonian ⟨p, A(u; θ)⟩ in the weights of an operator, its *stationarity*.
# It says how much the loss feels these weights, and is zero where they are optimal. Compare it
# with the loss without the layer:


# %%
def loss(logits):
    """The cross-entropy, the mean over the images."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, digits))


@eqx.filter_jit
def measure(model):
    return loss(model(images))


costates = contrib.costates(model, images, loss)
whole = measure(model)
print(f"loss with all layers: {whole:.3f}")
print("layer  attention  feed-forward  loss without the layer")
for layer, (attention, feed_forward) in enumerate(costates.stationarity):
    others = [i for i in range(4) if i != layer]
    without = measure(dynamics.keep_layers(model, others))
    print(f"{layer:5}  {attention:9.3f}  {feed_forward:12.3f}  {without:22.3f}")

# %% [markdown]
# The first layer has the largest slopes, and the model can do without it least. This is not so
# [in every model](../results/controlled.md): in two checkpoints the slopes do not rank
# operators.
#
# ## The smallest push
#
# `steer` adds an input v(t) to the equation, `u_t = Σ A(u; θ) + v(t)`. It finds the input of
# least energy `∫ |v|² dt` that gives another digit a probability of 0.9. Here each image
# becomes the next digit. `intervals=[layer]` allows the push in one layer only.

# %%
few, others = images[:8], (digits[:8] + 1) % 10
level = float(np.log(0.9 / 0.1))


def odds(logits):
    return contrib.log_odds(logits, others)


push = contrib.steer(model, few, odds, level)
single = [contrib.steer(model, few, odds, level, intervals=[i]).energy for i in range(4)]
print("image  becomes  energy  best layer alone")
for i in range(8):
    alone = np.array([energy[i] for energy in single])
    best = f"{alone.min():.1f} in layer {alone.argmin()}"
    print(f"{digits[i]:5}  {others[i]:7}  {push.energy[i]:6.1f}  {best}")

# %% [markdown]
# The energy of the push over layers says at which depth the model is easiest to steer. Its
# energy over patches says which part of the image the model has to mistake.

# %%
density = np.sum(np.array(push.pushes) ** 2, axis=-1).reshape(4, 8, 4, 4)
figure, axes = plt.subplots(2, 4, figsize=(7, 3.8), layout="constrained")
for i, ax in enumerate(axes.flat):
    ax.imshow(np.array(few[i]).reshape(8, 8), cmap="gray_r", extent=(0, 8, 8, 0))
    over = ax.imshow(
        density[:, i].sum(axis=0) / density[:, i].sum(),
        **dict(cmap="Reds", alpha=0.55, extent=(0, 8, 8, 0), vmin=0, vmax=0.4),
    )
    ax.set(title=f"{digits[i]} to {others[i]}", xticks=[], yticks=[])
figure.suptitle("Images, and the share of the push in each patch")
figure.colorbar(over, ax=axes, shrink=0.8, label="share of the energy")

# %%
figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
shares = density.sum(axis=(2, 3)) / density.sum(axis=(0, 2, 3))
ax.bar(range(4), shares.mean(axis=1), color="#0072B2", width=0.6)
ax.set(title="Where the push acts", xlabel="layer", ylabel="share of the energy")
ax.set_xticks(range(4))
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Most of the push goes into the first layer. What the model sees is decided early, and later
# layers are hard to talk out of it.
#
# In a terminal, `ide-transformer dynamics runs/digits` prints the costates, and `--steer 0.9`
# compares pushes over many inputs. [Read a model as a controlled
# system](../how-to/controlled.md) explains each reading.
