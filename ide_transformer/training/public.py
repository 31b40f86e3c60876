"""Its public names."""

from .build import build_model, build_model_of_size, build_task, with_solver, with_training
from .config import Config, ControlConfig, DataConfig, ModelConfig, SolverConfig, TrainingConfig
from .evaluation import (
    evaluate_loss,
    evaluate_on,
    evaluate_on_meshes,
    evaluation_task,
    run_task,
)
from .exits import cheapest_exits, estimated_exit, evaluate_exits
from .export import export_run
from .files import dump_config, load_config, read_tree
from .folder import RunFolder, flat_values
from .loading import LoadedModel, import_pretrained, load_model, load_run
from .metrics import read_metrics
from .optimizer import OptimizerConfig, build_optimizer, learning_rate
from .parallel import ParallelConfig
from .planning import plan, plan_of
from .predictions import Translation, bleu, draw_predictions, rollout_errors, translated
from .range_test import LearningRates, find_learning_rate
from .reader import read
from .run import Diverged, resume_run, train
from .schedule import Phase, Schedule, model_on, read_mesh, schedule_of
from .section import Section, validated
from .step import initial_state, make_train_step
from .stopping import Stopped
from .trackers import AbstractTracker, Tensorboard, Trackio
