from .generate import generate as generate
from .image_classifier import ImageClassifier as ImageClassifier
from .image_encoder import ImageEncoder as ImageEncoder
from .image_heads import (
    AbstractImageHead as AbstractImageHead,
    NoHead as NoHead,
    PrefixAndMeanHead as PrefixAndMeanHead,
    PrefixHead as PrefixHead,
)
from .language_model import LanguageModel as LanguageModel
from .model import AbstractModel as AbstractModel, Scheme as Scheme
from .text import Text as Text
from .text_encoder import (
    MaskedTokenHead as MaskedTokenHead,
    TextEncoder as TextEncoder,
    sentence_embedding as sentence_embedding,
)
