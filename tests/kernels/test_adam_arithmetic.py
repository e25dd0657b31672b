"""The kernel of Adam on the CPU: what Chainer's own kernel computes, and the count of updates."""
import math
import shutil

import numpy as np
import pytest

import chainer
from tests.kernels.emulation import Kernel, Memory, address
from util.engine import flat_adam
