"""forestbridge: train a pixel classifier once; run it in Python, Fiji, ilastik, QuPath and every bioimage.io tool.

image → encoder → feature store → scribbles → forest → package → the same answer everywhere. Each arrow is one function here.
"""

from forestbridge.archive import inspect_package
from forestbridge.encoders import features, open_encoder
from forestbridge.errors import ForestbridgeError
from forestbridge.export import export_features
from forestbridge.extract import extract
from forestbridge.featureforest import import_featureforest
from forestbridge.forest import PixelForest, load_forest
from forestbridge.ilastik import Project, read_project, write_project
from forestbridge.image import Image, as_image, read_image, write_labels, write_overlay, write_probabilities
from forestbridge.labels import Scribbles, as_scribbles, read_scribbles
from forestbridge.objects import (
    ObjectTable,
    Segmentation,
    annotator_agreement,
    baseline,
    convert_labels,
    evaluate,
    instances,
    measure,
    open_segmentation,
    postprocess,
    read_training_set,
    write_table,
)
from forestbridge.package import About, check_package, write_encoder_package, write_forest_package, write_package
from forestbridge.phantom import phantom
from forestbridge.predict import predict
from forestbridge.qc import quality
from forestbridge.runner import open_package
from forestbridge.sklearn_forest import forest_from_sklearn
from forestbridge.spec import EncoderSpec
from forestbridge.stores import open_store, verify_store, write_featureforest
from forestbridge.train import train

__version__ = "0.1.0"

__all__ = [
    "About",
    "EncoderSpec",
    "ForestbridgeError",
    "Image",
    "ObjectTable",
    "PixelForest",
    "Project",
    "Scribbles",
    "Segmentation",
    "annotator_agreement",
    "as_image",
    "as_scribbles",
    "baseline",
    "check_package",
    "convert_labels",
    "evaluate",
    "export_features",
    "extract",
    "features",
    "forest_from_sklearn",
    "import_featureforest",
    "inspect_package",
    "instances",
    "load_forest",
    "measure",
    "open_encoder",
    "open_package",
    "open_segmentation",
    "open_store",
    "phantom",
    "postprocess",
    "predict",
    "quality",
    "read_image",
    "read_project",
    "read_scribbles",
    "read_training_set",
    "train",
    "verify_store",
    "write_featureforest",
    "write_encoder_package",
    "write_forest_package",
    "write_labels",
    "write_overlay",
    "write_package",
    "write_probabilities",
    "write_project",
    "write_table",
]
