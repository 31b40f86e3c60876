"""Runs: configuration, training loop, checkpoints, metrics."""

from .. import public as _public  # noqa: F401, for constructors that check their arguments
from .build import (
    build_model as build_model,
    build_model_of_size as build_model_of_size,
    build_task as build_task,
    with_solver as with_solver,
    with_training as with_training,
)
from .choice import SchemeConfig as SchemeConfig, Section as Section
from .config import (
    Config as Config,
    ControlConfig as ControlConfig,
    DataConfig as DataConfig,
    ModelConfig as ModelConfig,
    SolverConfig as SolverConfig,
    TrainingConfig as TrainingConfig,
)
from .evaluation import (
    cheapest_exits as cheapest_exits,
    estimated_exit as estimated_exit,
    evaluate_exits as evaluate_exits,
    evaluate_loss as evaluate_loss,
    evaluate_on as evaluate_on,
    evaluate_on_meshes as evaluate_on_meshes,
    evaluation_task as evaluation_task,
    run_task as run_task,
    similarities as similarities,
)
from .export import export_run as export_run
from .folder import RunFolder as RunFolder, flat_values as flat_values
from .loading import (
    LoadedModel as LoadedModel,
    import_pretrained as import_pretrained,
    load_model as load_model,
    load_run as load_run,
)
from .meshes import mesh_of as mesh_of, model_on as model_on
from .metrics import read_metrics as read_metrics
from .names import did_you_mean as did_you_mean
from .optimizer import (
    OptimizerConfig as OptimizerConfig,
    build_optimizer as build_optimizer,
    learning_rate as learning_rate,
)
from .parallel import ParallelConfig as ParallelConfig
from .planning import plan as plan, plan_of as plan_of
from .predictions import (
    Translation as Translation,
    bleu as bleu,
    draw_predictions as draw_predictions,
    rollout_errors as rollout_errors,
    translated as translated,
)
from .range_test import LearningRates as LearningRates, find_learning_rate as find_learning_rate
from .reading import (
    dump_config as dump_config,
    load_config as load_config,
    read_tree as read_tree,
    validated as validated,
)
from .run import Diverged as Diverged, resume_run as resume_run, train as train
from .step import initial_state as initial_state, make_train_step as make_train_step
from .stopping import Stopped as Stopped
from .trackers import (
    AbstractTracker as AbstractTracker,
    Tensorboard as Tensorboard,
    Trackio as Trackio,
)
