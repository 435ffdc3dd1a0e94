"""The lift as an ONNX graph whose inputs are the indices that `vehicle.lift_plan.pad_lift` makes."""

from __future__ import annotations

from pathlib import Path

from bridgeta_core.deploy.backends.graphs import OPSET
from bridgeta_core.deploy.export.vehicle.lift_plan import ENTRIES, PARTS
from bridgeta_core.model.student import Student

# Gathers and sums alone: unlike scattered additions, every runtime has them. Everything is found at `Concat` behind the
# last element: a zero, which the indices of padding point at.
_GRAPH = """
<ir_version: 8, opset_import: ["": {opset}]>
lift (float[cameras, {h}, {w}, {bins}] depth, float[cameras, {h}, {w}, {channels}] features,
      int32[rows, {entries}] entries, int32[few, {parts}] parts, int32[{cells}, most] sums)
  => (float[{rows}, {columns}, {channels}] lifted)
{{
  flat = Constant <value_ints = [-1]> ()
  per_cell = Constant <value_ints = [-1, {channels}]> ()
  shape = Constant <value_ints = [{rows}, {columns}, {channels}]> ()
  middle = Constant <value_ints = [1]> ()
  bins = Constant <value = int32 {{{bins}}}> ()
  size = Constant <value_ints = [1, {channels}]> ()
  zero = Constant <value_floats = [0.0]> ()
  zeros = ConstantOfShape <value = float[1] {{0.0}}> (size)
  depths = Reshape (depth, flat)
  depths_and_zero = Concat <axis = 0> (depths, zero)
  cells = Reshape (features, per_cell)
  cells_and_zero = Concat <axis = 0> (cells, zeros)
  cell = Div (entries, bins)
  weights = Gather <axis = 0> (depths_and_zero, entries)
  weights_as_rows = Unsqueeze (weights, middle)
  gathered = Gather <axis = 0> (cells_and_zero, cell)
  products = MatMul (weights_as_rows, gathered)
  rows = Reshape (products, per_cell)
  rows_and_zero = Concat <axis = 0> (rows, zeros)
  of_parts = Gather <axis = 0> (rows_and_zero, parts)
  partial = ReduceSum <keepdims = 0> (of_parts, middle)
  partial_and_zero = Concat <axis = 0> (partial, zeros)
  of_cells = Gather <axis = 0> (partial_and_zero, sums)
  total = ReduceSum <keepdims = 0> (of_cells, middle)
  lifted = Reshape (total, shape)
}}
"""


def write_lift_graph(student: Student, path: Path) -> None:
    """Write the lift of a student as an ONNX file, from `[N, h, w, D]` and `[N, h, w, C]` to `[Y', X', C]`."""
    import onnx

    camera = student.camera
    (h, w), (rows, columns) = camera.feature_size, camera.lift.grid.shape
    text = _GRAPH.format(
        opset=OPSET,
        entries=ENTRIES,
        parts=PARTS,
        h=h,
        w=w,
        bins=len(camera.bins),
        channels=camera.lift.channels,
        rows=rows,
        columns=columns,
        cells=rows * columns,
    )
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
