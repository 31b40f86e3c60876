"""Tasks: data sets, tokenizers, batches and the loss."""

from .arrays import Arrays as Arrays
from .by_length import (
    AbstractSequencesByLength as AbstractSequencesByLength,
    Addition as Addition,
    ColumnAddition as ColumnAddition,
    Parity as Parity,
    WordProblem as WordProblem,
)
from .darcy import Darcy as Darcy
from .flows import (
    AbstractFlow as AbstractFlow,
    Burgers as Burgers,
    BurgersFlow as BurgersFlow,
    Exponax as Exponax,
    ExponaxFlow as ExponaxFlow,
    FlowMapTask as FlowMapTask,
    Functions as Functions,
    NavierStokes as NavierStokes,
    NavierStokesFlow as NavierStokesFlow,
    functions as functions,
)
from .images import (
    MNIST as MNIST,
    ClassificationTask as ClassificationTask,
    Digits as Digits,
    FashionMNIST as FashionMNIST,
    LabelledImages as LabelledImages,
    digits as digits,
    idx_folder as idx_folder,
)
from .language import (
    AbstractNextToken as AbstractNextToken,
    AbstractTextTask as AbstractTextTask,
    Dataset as Dataset,
    LanguageTask as LanguageTask,
    Shakespeare as Shakespeare,
    Text as Text,
)
from .losses import (
    AbstractLoss as AbstractLoss,
    Batch as Batch,
    CrossEntropy as CrossEntropy,
    Finer as Finer,
    InstanceCrossEntropy as InstanceCrossEntropy,
    Loss as Loss,
    Mean as Mean,
    RelativeError as RelativeError,
    RolloutError as RolloutError,
    averaged as averaged,
)
from .points import BurgersInterval as BurgersInterval
from .sequences import AbstractSequences as AbstractSequences, ListOps as ListOps, PHop as PHop
from .task import AbstractTask as AbstractTask, Part as Part
from .texts import read_text as read_text, shakespeare as shakespeare
from .tokenizers import (
    AbstractTokenizer as AbstractTokenizer,
    BytePairTokenizer as BytePairTokenizer,
    CharacterTokenizer as CharacterTokenizer,
    PretrainedTokenizer as PretrainedTokenizer,
    end_token as end_token,
    load_tokenizer as load_tokenizer,
)
from .verses import VersesEnEs as VersesEnEs
