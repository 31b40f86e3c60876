"""Tasks: data sets, tokenizers, batches and the loss."""

from .addition import Addition as Addition
from .burgers import Burgers as Burgers, BurgersFlow as BurgersFlow
from .burgers_interval import BurgersInterval as BurgersInterval
from .classification import (
    MNIST as MNIST,
    ClassificationTask as ClassificationTask,
    Digits as Digits,
    FashionMNIST as FashionMNIST,
)
from .column_addition import ColumnAddition as ColumnAddition
from .darcy import Darcy as Darcy
from .finer import Finer as Finer
from .flow_map import FlowMapTask as FlowMapTask
from .flows import AbstractFlow as AbstractFlow, Functions as Functions, functions as functions
from .images import LabelledImages as LabelledImages, digits as digits, idx_folder as idx_folder
from .language import LanguageTask as LanguageTask, Shakespeare as Shakespeare, Text as Text
from .list_ops import ListOps as ListOps
from .losses import (
    AbstractLoss as AbstractLoss,
    Batch as Batch,
    CrossEntropy as CrossEntropy,
    InstanceCrossEntropy as InstanceCrossEntropy,
    Loss as Loss,
    Mean as Mean,
    averaged as averaged,
)
from .navier_stokes import NavierStokes as NavierStokes, NavierStokesFlow as NavierStokesFlow
from .p_hop import PHop as PHop
from .parity import Parity as Parity
from .pretrained_tokenizer import (
    PretrainedTokenizer as PretrainedTokenizer,
    load_tokenizer as load_tokenizer,
)
from .relative_error import RelativeError as RelativeError
from .sequences import (
    AbstractSequences as AbstractSequences,
    AbstractSequencesByLength as AbstractSequencesByLength,
)
from .shuffling import shuffled as shuffled
from .spam import SpamBytes as SpamBytes
from .task import AbstractTask as AbstractTask, Part as Part
from .text_task import (
    AbstractNextToken as AbstractNextToken,
    AbstractTextTask as AbstractTextTask,
)
from .texts import read_text as read_text, shakespeare as shakespeare
from .token_files import TokenFiles as TokenFiles
from .token_folder import TokenFolder as TokenFolder
from .tokenizers import (
    AbstractTokenizer as AbstractTokenizer,
    BytePairTokenizer as BytePairTokenizer,
    CharacterTokenizer as CharacterTokenizer,
)
from .tokenizing import tokenize_files as tokenize_files
from .verses import VersesEnEs as VersesEnEs
from .word_problem import WordProblem as WordProblem
