"""The public names of tasks."""

from .arrays import Arrays, with_parameters
from .flows import (
    AbstractFlow,
    Burgers,
    Exponax,
    ExponaxFlow,
    FlowMapTask,
    NavierStokes,
    functions,
)
from .images import (
    MNIST,
    ClassificationTask,
    Digits,
    FashionMNIST,
    LabelledImages,
    digits,
    idx_folder,
)
from .language import AbstractNextToken, Dataset, LanguageTask, Shakespeare, Text
from .losses import (
    AbstractLoss,
    Batch,
    CrossEntropy,
    InstanceCrossEntropy,
    Loss,
    Mean,
    MeanSquaredError,
    PushforwardError,
    RelativeError,
    RolloutError,
    averaged,
)
from .points import AbstractAtPoints, BurgersInterval, PointSet, WeightRule, domains
from .task import AbstractDataSet, AbstractDrawn, AbstractTask, Part
from .texts import read_text, shakespeare
from .tokenizers import (
    AbstractTokenizer,
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    end_token,
    load_tokenizer,
)
from .trajectories import AbstractTrajectories, Paths, Trajectories
