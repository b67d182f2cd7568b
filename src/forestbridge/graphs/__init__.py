"""Models as files that other programs run: filter bank, forest and the two fused, as ONNX and TorchScript."""

from forestbridge.graphs.deviation import Deviation as Deviation
from forestbridge.graphs.encoder import export_encoder_onnx as export_encoder_onnx
from forestbridge.graphs.filters import export_filters_onnx as export_filters_onnx
from forestbridge.graphs.filters import minimum_size as minimum_size
from forestbridge.graphs.forest import export_forest_onnx as export_forest_onnx
from forestbridge.graphs.forest import forest_input as forest_input
from forestbridge.graphs.fused import export_fused_onnx as export_fused_onnx
from forestbridge.graphs.fused_deep import export_deep_fused_onnx as export_deep_fused_onnx
from forestbridge.graphs.torchscript import MAX_TORCHSCRIPT_DEPTH as MAX_TORCHSCRIPT_DEPTH
from forestbridge.graphs.torchscript import export_deep_fused_torchscript as export_deep_fused_torchscript
from forestbridge.graphs.torchscript import export_encoder_torchscript as export_encoder_torchscript
from forestbridge.graphs.torchscript import export_filters_torchscript as export_filters_torchscript
from forestbridge.graphs.torchscript import export_forest_torchscript as export_forest_torchscript
from forestbridge.graphs.torchscript import export_fused_torchscript as export_fused_torchscript
from forestbridge.graphs.torchscript import load_torchscript as load_torchscript
from forestbridge.graphs.torchscript import torchscript_without_warnings as torchscript_without_warnings
