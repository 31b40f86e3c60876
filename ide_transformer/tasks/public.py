"""Its public names."""

from .arrays import Arrays
from .by_length import AbstractSequencesByLength, Addition, ColumnAddition, Parity, WordProblem
from .darcy import Darcy
from .flows import (
    AbstractFlow,
    Burgers,
    BurgersFlow,
    Exponax,
    ExponaxFlow,
    FlowMapTask,
    Functions,
    NavierStokes,
    NavierStokesFlow,
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
from .language import (
    AbstractNextToken,
    AbstractTextTask,
    Dataset,
    LanguageTask,
    Shakespeare,
    Text,
)
from .losses import (
    AbstractLoss,
    Batch,
    CrossEntropy,
    Finer,
    InstanceCrossEntropy,
    Loss,
    Mean,
    PushforwardError,
    RelativeError,
    RolloutError,
    averaged,
)
from .mazes import Maze
from .points import BurgersInterval
from .sequences import AbstractSequences, ListOps, PHop
from .sudoku import Sudoku
from .task import AbstractDrawn, AbstractTask, Part
from .texts import read_text, shakespeare
from .tokenizers import (
    AbstractTokenizer,
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    end_token,
    load_tokenizer,
)
from .verses import VersesEnEs
