# %% [markdown]
# # A loop that finds the way
#
# At the end you have an equation that learned to mark the way through small mazes, and a
# picture of how it solves larger ones.
#
# A maze has walls, free cells and two ends, with one way between them. The weights are the same
# at all depths, and in a step a cell sees only the cells around it. So the state does what you
# do with a pencil: it fills dead ends until the way is left.

# %%
import tempfile
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np

import ide_transformer as ide
from ide_transformer import contrib, training


folder = Path(tempfile.mkdtemp())
jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))

# %% [markdown]
# ## Train on small mazes
#
# The equation has three terms: damping, the embedded maze, and a feed-forward that sees the
# cells around. Training takes 15 steps. The state comes to rest and keeps what it has found.

# %%
config = folder / "maze.yaml"
config.write_text("""
name: maze
data: {name: maze, options: {side: 9}}
model:
  kind: operator_model
  options: {modes: 0, grid: midpoint}
  width: 32
  layers: 24
  std: 0.15
  damping: 0.5
  operators:
    - stable_damping
    - injection
    - {kind: convolutional_feed_forward, options: {dimension: 2, outer_width: 3}}
  normalization: free
  constraint: sphere
control: {kind: tied}
optimizer:
  learning_rate: 5.0e-3
  final_learning_rate: 1.0e-4
  warmup: 100
  beta2: 0.99
  weight_decay: 0.1
training:
  steps: 800
  batch_size: 32
  schedule: [{meshes: [{horizon: 15}]}]
  evaluate_every: 800
  checkpoint_every: 800
""")
run = ide.train(training.load_config(config), runs=folder / "runs")
model = training.load_model(run.path).model

# %% [markdown]
# ## Solve it further, on larger mazes
#
# A maze counts as right if every cell is right:

# %%
mazes = {
    side: next(contrib.Maze(held_out_side=side).held_out(64, samples=64, part="test"))
    for side in (9, 17)
}


def right(outputs, targets):
    kinds = np.asarray(outputs).reshape(*targets.shape, 3).argmax(-1)
    return ((kinds == targets) | (targets < 0)).all(axis=1).mean()


horizons = (8, 16, 32, 128)
print("cells    " + "".join(f"{n:>6}" for n in horizons) + "  steps")
for side, batch in mazes.items():
    solves = [ide.compiled(model.on(ide.Mesh(horizon=n))) for n in horizons]
    shares = [right(solve(batch.inputs), batch.targets) for solve in solves]
    print(f"{side:2} by {side:2} " + "".join(f"{100 * x:5.0f}%" for x in shares))

# %% [markdown]
# ## Let it stop by itself
#
# A maze stops where the rest of the solve would change its outputs by less than 0.1 nats:

# %%
exit = ide.EstimatedExit(0.1, stops="sample", order=0)
stopping = model.on(ide.Mesh(horizon=128)).with_exit(exit)
for side, batch in mazes.items():
    solution = eqx.filter_jit(stopping.solve)(batch.inputs)
    share = right(stopping.outputs(solution.u1), batch.targets)
    steps = solution.stats["field_evaluations"].mean(axis=-1)
    print(
        f"{side} by {side}: {100 * share:.0f}% right, {steps.min():.0f} to {steps.max():.0f} "
        f"steps, {steps.mean():.1f} on average"
    )

# %% [markdown]
# ## Look at the state while it solves
#
# Now mazes of 59 by 59 cells, 43 times as many as in training. The picture shows the
# probability of being on the way. Dead ends are filled from their ends, a cell or two in a
# step, while the way stays.

# %%
depths = (32, 64, 128, 512)
deep = model.on(ide.Mesh(horizon=depths[-1]))
batch = next(contrib.Maze(held_out_side=59).held_out(8, samples=8, part="test"))
solution = deep.solve(batch.inputs, saveat=diffrax.SaveAt(ts=np.array(depths, float)))
outputs = [np.asarray(deep.outputs(u)) for u in solution.us]
solved = [right(o[None], t[None]) for o, t in zip(outputs[-1], batch.targets, strict=True)]
print(f"59 by 59: {int(sum(solved))} of 8 right in {depths[-1]} steps")

number = int(np.argmax(solved))
maze = batch.inputs[number].argmax(-1)
figure, every = plt.subplots(1, 5, figsize=(16, 3.6), layout="constrained")
every[0].imshow(maze, cmap="bone")
every[0].set_title("the maze")
for axes, depth, output in zip(every[1:], depths, outputs, strict=True):
    on_way = jax.nn.softmax(output[number])[:, 2].reshape(maze.shape)
    axes.imshow(np.ma.array(on_way, mask=maze == 0), vmin=0, vmax=1, cmap="viridis")
    axes.set(title=f"depth {depth}", facecolor="black")
for axes in every:
    axes.set(xticks=[], yticks=[])
figure.suptitle("Probability of being on the way")

# %% [markdown]
# An ordinary model cannot be solved further than its layers.
# [Results](../results/loops.md#mazes) compares both, and
# [More steps for longer inputs](../how-to/longer-inputs.md) has what such a loop needs.
