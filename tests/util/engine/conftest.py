"""Engines, and arrays in the orders of memory that they meet."""
import numpy as np
import pytest

from util.engine import threads
from util.engine.switch import ENGINES
from util.files import UserError

ORDERS = {
    'C': np.ascontiguousarray,
    'channels last': lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2),
    'Fortran': np.asfortranarray,
    'gaps': lambda x: np.repeat(x, 2, axis=3)[:, :, :, ::2],
    'backwards': lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
}


@pytest.fixture(autouse=True)
def split_everything(monkeypatch):
    """Work as small as a test's is split among threads, too."""
    monkeypatch.setattr(threads, '_WORTH', 1e-9)


@pytest.fixture(params=[name for name in ENGINES['cpu'] if name != 'stock'])
def engine(request):
    """Each engine's name; skipped, with the reason, where it cannot be loaded."""
    try:
        ENGINES['cpu'][request.param]()
    except UserError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(params=ORDERS)
def order(request):
    """Puts an array (N, C, H, W) into an order of memory."""
    return ORDERS[request.param]


@pytest.fixture
def last():
    """Puts an array (N, C, H, W) into the engines' own order."""
    return ORDERS['channels last']
