#@ ImagePlus imp
#@ String (label="Package or forest", persist=false) model
#@ String (label="Output", choices={"Segmentation", "Probabilities", "Uncertainty"}, persist=false) output
#@output ImagePlus result
# Only for Fiji in its Python mode, and for pyimagej. Nothing is printed: such a script has no output when it runs from a menu.
from scyjava import jimport

result = None
try:
    from forestbridge.errors import ForestbridgeError
    from forestbridge.fiji import segment
except ImportError as error:
    jimport("ij.IJ").error(
        "ForestBridge", f"expected forestbridge[fiji,cpu] in Fiji's Python, found {error}; install it there"
    )
else:
    try:
        result = segment(imp, str(model), output=str(output))
    except (ForestbridgeError, OSError, ValueError, TypeError) as error:
        jimport("ij.IJ").error("ForestBridge", str(error))
# Else a later call without a window takes this image, even after it was closed.
jimport("ij.WindowManager").setTempCurrentImage(None)
