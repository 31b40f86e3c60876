"""The public names of training."""

from .configuration.config import Config
from .configuration.files import dump_config, load_config, read_section, read_tree
from .configuration.model import ControlConfig, ModelConfig, SolverConfig
from .configuration.reader import Spec, resolve
from .configuration.section import Section, section
from .configuration.training import DataConfig, OptimizerConfig, ParallelConfig, TrainingConfig
from .folder.convert import export_run, import_pretrained
from .folder.loading import LoadedModel, load_model, load_run
from .folder.metrics import read_metrics
from .folder.run_folder import RunFolder, flat_values
from .loop import Diverged
from .measure.evaluation import (
    cheapest_exits,
    estimated_exit,
    evaluate_exits,
    evaluate_loss,
    evaluate_on,
    evaluate_on_meshes,
    evaluation_task,
    run_task,
)
from .measure.predictions import draw_predictions
from .measure.roll_outs import RollOut, roll_out
from .run import resume_run, train
from .steps.build import build_model, build_model_of_size, build_task, with_solver
from .steps.growth import AbstractGrowth, Refinement
from .steps.optimizer import build_optimizer, learning_rate
from .steps.phases import Phase, Phases, build_first_model, make_phases
from .steps.schedule import ScheduledMesh, mesh_drawer, model_on, scheduled_meshes
from .steps.step import initial_state, make_train_step
from .stopping import Stopped
from .trackers import AbstractTracker, Tensorboard, Wandb
