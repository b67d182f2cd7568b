"""run_onnx.py WEIGHTS INPUT.npy OUTPUT.npy: runs a graph in any version of onnxruntime; prints the version."""

import sys

import numpy as np
import onnxruntime

weights, source, target = sys.argv[1:]
session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
np.save(target, session.run(None, {session.get_inputs()[0].name: np.load(source)})[0])
print(onnxruntime.__version__)
