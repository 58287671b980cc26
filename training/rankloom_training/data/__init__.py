"""A folder's log and item table, in whatever form they come, as checked arrays."""

from rankloom_training.data.dataset import Dataset as Dataset
from rankloom_training.data.dataset import load_dataset as load_dataset
from rankloom_training.data.errors import DataError as DataError
from rankloom_training.data.interactions import Interactions as Interactions
from rankloom_training.data.interactions import Split as Split
from rankloom_training.data.interactions import make_log as make_log
