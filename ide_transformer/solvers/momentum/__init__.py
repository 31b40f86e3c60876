"""Schemes that give the state a velocity."""

from .heavy_ball import HeavyBall as HeavyBall
from .momentum import AbstractMomentum as AbstractMomentum
from .nesterov import Nesterov as Nesterov
from .presymplectic_euler import PresymplecticEuler as PresymplecticEuler
