# %% [markdown]
# # Depth is time
#
# At the end you have learned an equation from pairs of states, and solved it for other times,
# viscosities and grids, and with other schemes.
#
# A network that maps a state to the one after Δt knows no other time. An equation does:
#
#     u_t = κ ν u_xx + G(u; θ)
#
# You learn κ and G from functions that are Δt = 0.1 apart. The data solve Burgers' equation,
# where κ = 1 and G = -(u²/2)_x. The model is told neither. The data need exponax:
# `pip install 'ide_transformer[physics]'`.

# %%
import equinox as eqx
import exponax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ide_transformer as ide


FINE, POINTS, DT = 512, 128, 0.1


def burgers(key, number, time, times, viscosities):
    """Solutions `[number, times + 1, FINE]` at multiples of `time`, and their viscosities."""
    first, second = jax.random.split(key)
    waves = exponax.ic.RandomTruncatedFourierSeries(1, cutoff=4, max_one=True)
    u0 = exponax.build_ic_set(waves, num_points=FINE, num_samples=number, key=first)
    nu = jax.random.uniform(second, (number,), minval=viscosities[0], maxval=viscosities[1])

    def solution(u0, nu):
        step = exponax.stepper.Burgers(1, 1.0, FINE, time / 32, diffusivity=nu, order=4)
        return exponax.rollout(exponax.RepeatedStepper(step, 32), times, include_init=True)(u0)

    return jax.jit(jax.vmap(solution))(u0, nu)[:, :, 0], nu


learned = (0.005, 0.02)
u, nu = burgers(jax.random.key(0), 200, DT, 10, learned)
u = u[..., :: FINE // POINTS]
before, after = u[:, :-1].reshape(-1, POINTS), u[:, 1:].reshape(-1, POINTS)
nu = jnp.repeat(nu, 10)

# %% [markdown]
# ## An equation in two terms
#
# A state has two features, u and the viscosity ν, which does not change. Diffusion is linear,
# so a splitting solves it exactly. G sees the neighbourhood of a point.


# %%
class Heat(ide.AbstractLinearOperator):
    """`u_t = κ ν u_xx` on a circle."""

    log_rate: jax.Array

    dissipative = True

    def apply(self, function, u, domain):
        k = 2 * jnp.pi * jnp.arange(domain.num_tokens // 2 + 1)
        factor = function(-jnp.exp(self.log_rate) * u[..., :1, 1] * k**2)
        v = jnp.fft.irfft(factor * jnp.fft.rfft(u[..., 0]), domain.num_tokens)
        return jnp.stack([v, function(jnp.zeros(())) * u[..., 1]], axis=-1)


class Local(ide.AbstractOperator):
    """`u_t = G(u)`."""

    neighbourhood: ide.ConvolutionalFeedForward

    def __call__(self, u, domain):
        return self.neighbourhood(u, domain) * jnp.array([1.0, 0.0])


neighbourhood = ide.ConvolutionalFeedForward(
    2, 24, outer_width=3, spacing=1 / 64, gated=True, std=0.1, key=jax.random.key(1)
)
block = Heat(jnp.log(0.5)), Local(neighbourhood)


@eqx.filter_jit
def solve(block, u, nu, *, time=DT, steps=4, solver=ide.Strang()):
    """The solution after a time."""
    control = ide.Tied(block, layers=steps, interval_length=time / steps)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.periodic(u.shape[-1]))
    state = jnp.stack([u, jnp.broadcast_to(nu[:, None], u.shape)], axis=-1)
    return ide.solve(equation, state, solver=solver, throw=False).u1[..., 0]


# %% [markdown]
# ## Learn it from pairs that are Δt apart
#
# Training takes four steps of a Strang splitting for each Δt. The loss is the squared relative
# error.

# %%
training_steps = 600
schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, training_steps // 20, training_steps)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def errors(prediction, exact):
    return jnp.linalg.norm(prediction - exact, axis=-1) / jnp.linalg.norm(exact, axis=-1)


@eqx.filter_jit
def train_step(block, state, key):
    chosen = jax.random.choice(key, len(before), (32,))

    def loss(block):
        prediction = solve(block, before[chosen], nu[chosen])
        return jnp.mean(errors(prediction, after[chosen]) ** 2)

    updates, state = optimizer.update(jax.grad(loss)(block), state)
    return optax.apply_updates(block, updates), state


state = optimizer.init(block)
for key in jax.random.split(jax.random.key(2), training_steps):
    block, state = train_step(block, state, key)
print(f"κ = {jnp.exp(block[0].log_rate):.3f}, which is 1")

# %% [markdown]
# ## Other times, viscosities and grids
#
# The test has new functions and other times. Its steps are as long as in training.

# %%
tests = {
    "0.005 to 0.02, as in training": burgers(jax.random.key(3), 64, DT / 4, 16, learned),
    "0.02 to 0.03": burgers(jax.random.key(3), 64, DT / 4, 16, (0.02, 0.03)),
}
for name, (exact, viscosity) in tests.items():
    for points in (64, 128, 256):
        u = exact[..., :: FINE // points]
        time_errors = [
            errors(solve(block, u[:, 0], viscosity, time=n * DT / 4, steps=n), u[:, n])
            for n in (1, 2, 4, 8, 16)
        ]
        row = ", ".join(f"{x.mean():.3f}" for x in time_errors)
        print(f"ν {name}; {points} points: after Δt/4, Δt/2, Δt, 2Δt, 4Δt {row}")

# %% [markdown]
# The errors are about the same at all times: the model learned the equation, not the map over
# Δt. They are the same on all grids, since the neighbours of G are always 1/64 apart.
#
# ## Other schemes
#
# The same weights, after Δt, by evaluations of G:

# %%
exact, viscosity = tests["0.005 to 0.02, as in training"]
u = exact[..., :: FINE // POINTS]
schemes = {
    "Lie–Trotter (Euler)": (ide.LieTrotter(), 1),
    "Strang (Heun)": (ide.Strang(), 2),
    "Strang (RK4)": (ide.Strang(ide.RK4()), 4),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for name, (solver, stages) in schemes.items():
    evaluations = np.array([n for n in (2, 4, 8, 16, 32) if n >= stages])
    off = [
        errors(solve(block, u[:, 0], viscosity, steps=int(n) // stages, solver=solver), u[:, 4])
        for n in evaluations
    ]
    mean = [float(x.mean()) for x in off]
    print(name, ", ".join(f"{n}: {x:.3f}" for n, x in zip(evaluations, mean, strict=True)))
    left.loglog(evaluations, mean, "o-", base=2, label=name)
left.set(title="Error after Δt", xlabel="evaluations of G", ylabel="relative error")
left.set_xticks((2, 4, 8, 16, 32), labels=["2", "4", "8", "16", "32"])
left.set_yscale("log")
left.legend()

x = np.arange(POINTS) / POINTS
for n in (0, 1, 2, 4, 8, 16):
    solution = (
        u[0, 0] if n == 0 else solve(block, u[:, 0], viscosity, time=n * DT / 4, steps=n)[0]
    )
    right.plot(x, solution, color=plt.cm.viridis(np.log2(n + 1) / 4.6), label=f"{n / 4:g} Δt")
    right.plot(x, u[0, n], "k:", linewidth=1)
right.set(title="A solution, and the simulation (dotted)", xlabel="x")
right.legend(fontsize="small", ncols=2)

# %% [markdown]
# A scheme of higher order needs fewer evaluations: Strang with 8 has a smaller error than
# Lie–Trotter with 32. More steps do not help further, since 0.02 is the error of what was
# learned.
#
# [Emulate a simulator](../how-to/emulators.md) has networks that map over Δt, which need no
# known term.
