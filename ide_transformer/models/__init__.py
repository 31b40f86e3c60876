"""Models: an embedded input, an equation, a read-out."""

from .cached_decoder import CachedDecoder as CachedDecoder, why_not_cached as why_not_cached
from .causality import check_causal as check_causal
from .classifier import AbstractImageClassifier as AbstractImageClassifier
from .encoded import Encoded as Encoded
from .encoder_decoder import EncoderDecoder as EncoderDecoder, SourceAndText as SourceAndText
from .field import Field as Field
from .functional_model import FunctionalModel as FunctionalModel, functional as functional
from .generate import generate as generate
from .generate_beam import generate_beam as generate_beam
from .generate_greedy import generate_greedy as generate_greedy
from .image_classifier import ImageClassifier as ImageClassifier
from .image_encoder import ImageEncoder as ImageEncoder
from .image_heads import (
    AbstractImageHead as AbstractImageHead,
    MeanHead as MeanHead,
    NoHead as NoHead,
    PrefixAndMeanHead as PrefixAndMeanHead,
    PrefixHead as PrefixHead,
)
from .image_model import AbstractImageModel as AbstractImageModel
from .image_stage import ImageStage as ImageStage
from .language_model import LanguageModel as LanguageModel
from .mesh import Mesh as Mesh
from .model import Discretization as Discretization, Model as Model
from .operator_model import OperatorModel as OperatorModel
from .sentence_embedding import (
    mean_vectors as mean_vectors,
    sentence_embedding as sentence_embedding,
)
from .sequence_classifier import SequenceClassifier as SequenceClassifier
from .speech_encoder import SpeechEncoder as SpeechEncoder
from .stage import AbstractStage as AbstractStage
from .staged_model import StagedModel as StagedModel
from .state_model import StateModel as StateModel
from .text import Text as Text
from .text_encoder import MaskedTokenHead as MaskedTokenHead, TextEncoder as TextEncoder
from .text_model import AbstractTextModel as AbstractTextModel
from .token_convolution import TokenConvolution as TokenConvolution
from .u_shaped_model import UShapedModel as UShapedModel
