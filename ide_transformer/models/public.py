"""Its public names, which `ide_transformer` has too."""

from .audio import AudioInputs as AudioInputs, TokenConvolution as TokenConvolution
from .build import (
    EncoderDecoder as EncoderDecoder,
    ImageClassifier as ImageClassifier,
    ImageEncoder as ImageEncoder,
    ImageStage as ImageStage,
    LanguageModel as LanguageModel,
    OperatorModel as OperatorModel,
    SequenceClassifier as SequenceClassifier,
    SpeechEncoder as SpeechEncoder,
    StagedModel as StagedModel,
    StateModel as StateModel,
    TextEncoder as TextEncoder,
    TranslationModel as TranslationModel,
    UShapedModel as UShapedModel,
)
from .cached_decoder import CachedDecoder as CachedDecoder, why_not_cached as why_not_cached
from .chains import (
    EncodedInputs as EncodedInputs,
    GridInputs as GridInputs,
    SourceAndText as SourceAndText,
    StageInputs as StageInputs,
    VCycleInputs as VCycleInputs,
)
from .compiled import compiled as compiled
from .functions import (
    ChannelsFirst as ChannelsFirst,
    Field as Field,
    FunctionInputs as FunctionInputs,
    FunctionValues as FunctionValues,
)
from .generate import (
    generate as generate,
    generate_beam as generate_beam,
    generate_greedy as generate_greedy,
)
from .images import AbstractImageInputs as AbstractImageInputs, ImageInputs as ImageInputs
from .mesh import Mesh as Mesh
from .model import Model as Model, functional as functional
from .parts import (
    AbstractInputs as AbstractInputs,
    AbstractReadOut as AbstractReadOut,
    Embedded as Embedded,
    Encoded as Encoded,
    Text as Text,
)
from .read_outs import (
    AbstractClassifier as AbstractClassifier,
    MeanHead as MeanHead,
    PrefixAndMeanHead as PrefixAndMeanHead,
    PrefixHead as PrefixHead,
    States as States,
    TokenLogits as TokenLogits,
    sentence_embedding as sentence_embedding,
)
from .text_inputs import TextInputs as TextInputs
