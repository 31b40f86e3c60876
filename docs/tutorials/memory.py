# %% [markdown]
# # Gradients in constant memory
#
# At the end you have one gradient computed in four ways, and a figure of the memory of each, at
# 12 and at 48 layers.
#
# Backpropagation needs the states of the forward pass. The *gradient mode* of a solve decides
# which states are kept and which are computed again.
#
# ## A loss
#
# The memory of a program is known as soon as it is compiled.

# %%
import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import ide_transformer as ide


FEATURES, TOKENS, BATCH = 64, 64, 4


def make_block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    return (
        ide.Attention(FEATURES, heads=4, causal=True, normalization=norm, std=0.05, key=first),
        ide.FeedForward(FEATURES, normalization=norm, std=0.05, key=second),
    )


def make_control(layers):
    return ide.PiecewiseConstant.build(make_block, layers, key=jax.random.key(0))


domain = ide.TokenDomain.uniform(TOKENS)
u0 = jax.random.normal(jax.random.key(1), (BATCH, TOKENS, FEATURES))


def gradient_in(mode, solver):
    """The gradient of a loss with respect to the weights, in a gradient mode."""

    def loss(control, u0):
        equation = ide.Equation(control, ide.Free(), domain)
        u1 = ide.solve(equation, u0, solver=solver, gradient=mode, throw=False).u1
        return jnp.mean(u1**2)

    return jax.jit(jax.grad(loss))


# %% [markdown]
# ## Four modes
#
# - `Direct()` keeps every intermediate value.
# - `Recompute()`, the default, keeps the products with weights and computes the rest again.
# - `Recursive()` keeps the states at the ends of segments of depth and solves each segment
#   again.
# - `Reversible()` keeps only the state at T and rebuilds earlier states by undoing the steps.
#   `AlgebraicallyReversible(scheme)` makes a scheme whose steps can be undone, with two field
#   evaluations for one.

# %%
scheme = ide.LieTrotter(diffrax.Euler())
modes = {
    "Direct()": (ide.Direct(), scheme),
    "Recompute()": (ide.Recompute(), scheme),
    "Recursive()": (ide.Recursive(), scheme),
    "Reversible()": (ide.Reversible(), ide.AlgebraicallyReversible(scheme)),
}
layers = [12, 48]
memory, gradients = {}, {}
for name, (mode, solver) in modes.items():
    programs = [gradient_in(mode, solver).lower(make_control(n), u0).compile() for n in layers]
    memory[name] = [p.memory_analysis().temp_size_in_bytes / 2**20 for p in programs]
    gradients[name] = programs[0](make_control(12), u0)
    print(f"{name:14}" + "".join(f"{size:8.1f} MiB" for size in memory[name]))

# %%
figure, axes = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
colors = ("#D55E00", "#0072B2", "#000000", "#009E73")
for (name, sizes), color in zip(memory.items(), colors, strict=True):
    axes.plot(layers, sizes, marker="o", color=color)
    label = f"{name}, {sizes[-1]:.1f} MiB"
    place = dict(xytext=(8, 0), textcoords="offset points", va="center", color=color)
    axes.annotate(label, (layers[-1], sizes[-1]), **place)
axes.set_title("Memory of a gradient in four modes")
axes.set(xlabel="layers", ylabel="memory of the gradient (MiB)", xticks=layers, xlim=(8, 84))
axes.set_ylim(bottom=0)
axes.grid(alpha=0.3)

# %% [markdown]
# From 12 to 48 layers, `Direct()` and `Recompute()` need about four times the memory.
# `Recursive()` needs less than twice, and `Reversible()` the same.
#
# ## The same gradient
#
# All modes give the gradient of the discrete solution, up to rounding. `Reversible()` solved
# with another scheme, so compare it with `Direct()` on that scheme.


# %%
def relative_difference(one, other):
    one, other = (
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(g)]) for g in (one, other)
    )
    return float(jnp.linalg.norm(one - other) / jnp.linalg.norm(other))


for name in ("Recompute()", "Recursive()"):
    difference = relative_difference(gradients[name], gradients["Direct()"])
    print(f"{name:14} differs from Direct() by {difference:.1e}")

direct = gradient_in(ide.Direct(), ide.AlgebraicallyReversible(scheme))
difference = relative_difference(gradients["Reversible()"], direct(make_control(12), u0))
print(f"{'Reversible()':14} differs from Direct() by {difference:.1e}")

# %% [markdown]
# The rounding errors of rebuilt states grow with depth. If they would spoil a gradient, you get
# an error, never a wrong number.

# %% [markdown]
# ## The price of reversibility
#
# `AlgebraicallyReversible(scheme, coupling)` carries a second state along. If the equation
# decays, the two drift apart: a mode that decays at the rate μ is stable only for steps with
# `h μ ≤ -log(coupling)`. A smaller coupling is more stable, and undone less exactly.
#
# Solve twelve layers, then the same layers with a damping `u_t = -u`. The numbers are relative
# errors:

# %%
small = ide.TokenDomain.uniform(16)
start = jax.random.normal(jax.random.key(2), (16, FEATURES))


def make_damped(key):
    return (*make_block(key), ide.Damping(1.0))


def errors_on(make, schemes, steps):
    control = ide.PiecewiseConstant.build(make, 12, key=jax.random.key(0))
    deep = ide.Equation(control, ide.Free(), small)

    def end(solver, number):
        return ide.solve(deep, start, solver=solver, steps_per_interval=number).u1

    exact = end(diffrax.Dopri8(), 16)
    return [
        float(jnp.linalg.norm(end(s, steps) - exact) / jnp.linalg.norm(exact)) for s in schemes
    ]


couplings = (0.5, 0.9, 0.99)
print(f"{'':26}{'RK4':>9}" + "".join(f"{f'λ = {x}':>10}" for x in couplings))
inside = [ide.RK4(), *(ide.AlgebraicallyReversible(ide.RK4(), x) for x in couplings)]
for name, make, steps in (("blocks", make_block, 1), ("blocks and damping", make_damped, 4)):
    print(f"{name:26}" + "".join(f"{x:10.1e}" for x in errors_on(make, inside, steps)))

# %% [markdown]
# Pre-norm blocks hardly decay, and reversibility costs little accuracy at any coupling. With
# damping the default coupling of 0.99 is useless. Take 0.5 with short steps, or save memory
# with `Recursive()`.
#
# In a configuration the mode is the key `training.gradient`. [Choose a gradient
# mode](../how-to/gradient-mode.md) says which one to take and how much time it costs.
