# %% [markdown]
# # Load a checkpoint and solve it otherwise
#
# At the end you have loaded a Llama as an equation, and a figure shows its loss with more and
# with fewer evaluations.
#
# ## Load
#
# `glassllm` is a small Llama of four layers, trained on *Alice in Wonderland*. `load_model`
# downloads its weights, 3 MB, once with pip, checks them, and keeps them in your cache folder;
# nothing is installed. A Hugging Face folder with `config.json` and safetensors loads in the
# same way.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import ide_transformer as ide
from ide_transformer import contrib, dynamics, tasks


loaded = ide.load_model("glassllm")
model, tokenizer = loaded.model, loaded.tokenizer
print("layers:", model.layers)
print("width:", model.features)
print("scheme:", type(model.solver).__name__)
print(ide.generate(model, "Alice was", 40, temperature=0, tokenizer=tokenizer))

# %% [markdown]
# ## Measure
#
# The loss is the cross-entropy of the next token on windows of Shakespeare, which the model has
# never seen. Calibration windows come from another part of the text.

# %%
task = tasks.LanguageTask(tasks.shakespeare(), context=64, tokenizer=tokenizer)
held_out = next(task.held_out(96, samples=96))
calibration = task.batch(0, 32, seed=0).inputs


@eqx.filter_jit
def measure(model):
    """The field evaluations of a solve, and the loss."""
    solution = model.solve(held_out.inputs)
    logits = model.outputs(solution.u1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, held_out.targets)
    return solution.stats["field_evaluations"], jnp.mean(losses)


def report(label, model):
    evaluations, loss = map(float, measure(model))
    print(f"{label:32}{evaluations:4.0f} evaluations   loss {loss:.3f}")
    return evaluations, loss


native = report("as trained: LieTrotter(Euler())", model)

# %% [markdown]
# ## More evaluations
#
# `model.on(mesh)` gives the same weights another scheme, or more steps.

# %%
lie_trotter = [native]
for steps in (2, 4):
    changed = model.with_solver(ide.LieTrotter()).on(ide.Mesh(steps=steps))
    lie_trotter.append(report(f"LieTrotter(Euler()), {steps} steps", changed))

strang = []
for steps in (1, 2):
    changed = model.with_solver(ide.Strang()).on(ide.Mesh(steps=steps))
    strang.append(report(f"Strang(Heun()), {steps} per layer", changed))

# %% [markdown]
# Every refinement makes the loss *larger*. The weights have learned the scheme and the step of
# their training. A model that you want to solve otherwise must be [trained for
# it](../how-to/any-depth.md).
#
# ## Fewer evaluations
#
# `contrib.coarsenings` makes models of fewer evaluations. It drops, lengthens and merges
# layers, and chooses what changes the outputs least on the calibration windows. It needs no
# targets. For comparison, drop the last layers instead.


# %%
def probabilities(logits, inputs):
    """What the task reads from the outputs."""
    return jax.nn.softmax(logits)


coarsened, dropped = [native], [native]
for mesh in contrib.coarsenings(model, calibration, read=probabilities):
    number = int(mesh.evaluations)
    if number == 4:
        continue  # the model itself
    coarsened.append(report(f"coarsened to {number}", mesh.model))
    shorter = dynamics.keep_layers(model, range(number))
    dropped.append(report(f"the first {number} layers alone", shorter))
    if number == 2:
        break

# %%
figure, axes = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
for label, points, color, place, side in (
    ("LieTrotter(Euler()),\nmore steps", lie_trotter, "#0072B2", (-14, -6), "right"),
    ("Strang(Heun())", strang, "#D55E00", (0, 8), "center"),
    ("coarsened", coarsened, "#009E73", (-9, -4), "right"),
    ("last layers dropped", dropped, "#CC79A7", (9, 2), "left"),
    ("as trained", [native], "#000000", (8, -13), "left"),
):
    axes.plot(*zip(*points, strict=True), marker="o", color=color)
    options = dict(xytext=place, textcoords="offset points", color=color, ha=side)
    axes.annotate(label, points[-1], **options)
axes.margins(x=0.2, y=0.12)
axes.set_xscale("log", base=2)
axes.set_xticks([2, 3, 4, 8, 16, 24], ["2", "3", "4", "8", "16", "24"])
axes.set_title("A checkpoint, solved otherwise")
axes.set(xlabel="field evaluations of a solve", ylabel="loss on held-out windows (nats)")
axes.grid(alpha=0.3)

# %% [markdown]
# Three evaluations, chosen well, are as good as the four of training. But 96 windows are few.
# `ide-transformer depth glassllm` measures more windows, gives the uncertainty of each
# difference, and tries published methods.
