"""Reads arrays from files: NumPy, tables, NetCDF, HDF5, Zarr, The Well, PDEBench."""

from .kinds import stored_arrays as stored_arrays
from .stored import (
    PREFIXES as PREFIXES,
    StoredArray as StoredArray,
    array_names as array_names,
    find_array as find_array,
    number_labels as number_labels,
    parts_in_file as parts_in_file,
    read_arrays as read_arrays,
)
