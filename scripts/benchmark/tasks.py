"""What is measured: each task is one job on one problem, and the contenders that do it."""

from typing import Literal, NamedTuple

Compare = Literal["labels", "probabilities", "features", "accuracy", "nothing"]
"""How a contender's answer is held against forestbridge's."""


class Problem(NamedTuple):
    """Inputs that `data.write_inputs` draws: a square image, its classes, and how many pixels are labelled."""

    size: int = 1024
    classes: int = 2
    pixels: int = 3000


class Contender(NamedTuple):
    """A file in contenders/, what the tables call it, and the peer whose environment it needs; None for our own."""

    name: str
    label: str
    peer: str | None = None


class Task(NamedTuple):
    """A job.

    Attributes
    ----------
    key
        Short name, for --only.
    title, note
        What the page says.
    contenders
        forestbridge first: the others are compared with it.
    quick
        Whether --quick measures it.
    """

    key: str
    title: str
    note: str
    problem: Problem
    contenders: tuple[Contender, ...]
    compare: Compare
    quick: bool = False


OURS = "**forestbridge**"
SKLEARN = "scikit-learn, rows"

MAPS = (
    Contender("maps_forestbridge", OURS),
    Contender("maps_sklearn", SKLEARN),
    Contender("maps_sklearn_view", "scikit-learn, transposed view"),
    Contender("maps_onnxruntime", "onnxruntime"),
)
PLANES = (
    Contender("planes_forestbridge", OURS),
    Contender("planes_sklearn", SKLEARN),
    Contender("convpaint_classifier", "napari-convpaint's classifier (CatBoost)", "convpaint"),
)
IMAGE = (
    Contender("image_forestbridge", OURS),
    Contender("image_scipy_sklearn", "scipy + scikit-learn"),
    Contender("image_package", "forestbridge's package, onnxruntime"),
    Contender("vigra_ilastik", "ilastik's filters and forest (vigra)", "vigra"),
    Contender("apoc_pixels", "apoc (OpenCL on the CPU)", "apoc"),
)

MAPS_NOTE = (
    "A forest of 100 trees on 256 features whose cells lie 16 pixels apart. forestbridge takes the cells as they are stored; the "
    "others get the features of every pixel, which are in memory already: their interpolation is not counted."
)
PLANES_NOTE = (
    "A forest of 100 trees on ilastik's 49 features, which are noisy and in memory already. CatBoost is another model, with another "
    "answer."
)
IMAGE_NOTE = (
    "From the image to labels: ilastik's 49 filters, then a forest of 100 trees. apoc has 37 filters of its own."
)

TASKS = (
    Task("maps-2", "Deep features, 2 classes", MAPS_NOTE, Problem(classes=2), MAPS, "probabilities", quick=True),
    Task("maps-4", "Deep features, 4 classes", MAPS_NOTE, Problem(classes=4), MAPS, "probabilities"),
    Task(
        "levels",
        "Deep features in three levels",
        "768 float16 features at strides 4, 8 and 16, 100 trees, 4 classes. Interpolation is counted on both sides.",
        Problem(classes=4),
        (Contender("levels_forestbridge", OURS), Contender("levels_torch_sklearn", "torch + scikit-learn")),
        "probabilities",
    ),
    Task(
        "slice",
        "FeatureForest's slice",
        "Read the features of a slice from the store and predict labels, 450 trees of depth 9. FeatureForest's store holds 256 features "
        "of every pixel, forestbridge's the 64 × 64 cells they are interpolated from. FeatureForest leaves one core free: it runs on one "
        "of the two.",
        Problem(classes=2),
        (
            Contender("slice_forestbridge", OURS),
            Contender("featureforest_slice", "FeatureForest 0.1.2", "featureforest"),
        ),
        "labels",
    ),
    Task(
        "filters",
        "Filter bank",
        "ilastik's 49 features in 2D. fastfilters is what ilastik itself uses. scikit-image has 48 features of its own.",
        Problem(),
        (
            Contender("filters_forestbridge", OURS),
            Contender("filters_scipy", "scipy, shared passes"),
            Contender("filters_scipy_tiles", "scipy, shared passes, in tiles"),
            Contender("filters_onnxruntime", "onnxruntime on our graph"),
            Contender("vigra_filters", "vigra", "vigra"),
            Contender("fastfilters_filters", "fastfilters", "fastfilters"),
            Contender("skimage_basic", "scikit-image's multiscale_basic_features", "scikit-image"),
        ),
        "features",
        quick=True,
    ),
    Task("planes-2", "Forest on 49 features, 2 classes", PLANES_NOTE, Problem(classes=2), PLANES, "labels"),
    Task("planes-4", "Forest on 49 features, 4 classes", PLANES_NOTE, Problem(classes=4), PLANES, "labels"),
    Task("image-2", "Image to labels, 2 classes", IMAGE_NOTE, Problem(classes=2), IMAGE, "labels", quick=True),
    Task("image-4", "Image to labels, 4 classes", IMAGE_NOTE, Problem(classes=4), IMAGE, "labels"),
    Task(
        "training",
        "Training",
        "5,000 labelled pixels × 256 features, 4 classes, 100 trees. *Accuracy* is the share of 20,000 pixels of another image that the "
        "forest gets right.",
        Problem(classes=4, pixels=5000),
        (
            Contender("training_intelex", OURS + ", scikit-learn-intelex"),
            Contender("training_forestbridge", "forestbridge, scikit-learn"),
            Contender("training_sklearn", "scikit-learn's defaults"),
        ),
        "accuracy",
    ),
    Task(
        "smoothing",
        "Smoothing a mask",
        "Closing, 25 iterations of mean curvature smoothing, Otsu's threshold: FeatureForest's post-processing of one class.",
        Problem(),
        (Contender("smoothing_forestbridge", OURS), Contender("smoothing_numpy", "numpy, as the formula is written")),
        "labels",
    ),
    Task(
        "objects",
        "Connected components",
        "A mask of many regions to numbered objects; pixels that touch at corners are one object.",
        Problem(),
        (
            Contender("objects_forestbridge", OURS),
            Contender("objects_scipy", "scipy.ndimage.label"),
            Contender("objects_skimage", "scikit-image's label"),
        ),
        "labels",
    ),
)

SCALING = (0.25, 1, 4, 16, 64, 400)
"""Megapixels of square images, for the cost by size."""

SCALING_PEER_LIMIT = 4
"""Megapixels up to which scipy and scikit-learn are measured too: they hold the features of the whole image, 200 MB a megapixel."""
