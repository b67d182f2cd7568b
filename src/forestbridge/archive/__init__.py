"""Reading packages without running anything: zip and YAML limits, hashes, trust; ONNX sessions from checked bytes."""

from forestbridge.archive.info import PACKAGE_FORMAT as PACKAGE_FORMAT
from forestbridge.archive.info import PackageInfo as PackageInfo
from forestbridge.archive.info import WeightsInfo as WeightsInfo
from forestbridge.archive.info import inspect_package as inspect_package
from forestbridge.archive.members import LIMITS as LIMITS
from forestbridge.archive.members import Limits as Limits
from forestbridge.archive.members import Member as Member
from forestbridge.archive.onnx_graph import OnnxFacts as OnnxFacts
from forestbridge.archive.onnx_graph import OnnxTensor as OnnxTensor
from forestbridge.archive.onnx_graph import check_graph_against_rdf as check_graph_against_rdf
from forestbridge.archive.onnx_graph import onnx_facts as onnx_facts
from forestbridge.archive.reading import load_tensor as load_tensor
from forestbridge.archive.reading import read_member as read_member
from forestbridge.archive.reading import require_trust as require_trust
from forestbridge.archive.session import onnx_session as onnx_session
from forestbridge.archive.session import run_session as run_session
from forestbridge.archive.tensors import AxisInfo as AxisInfo
from forestbridge.archive.tensors import TensorInfo as TensorInfo
