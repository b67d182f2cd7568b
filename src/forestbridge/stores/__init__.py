"""Feature stores: what an encoder saw in an image, on disk, tile by tile."""

from forestbridge.stores.base import FeatureStore, ImageFacts, create_store, open_store
from forestbridge.stores.featureforest import FEATUREFOREST, featureforest_settings
from forestbridge.stores.featureforest_writer import plan_featureforest, write_featureforest
from forestbridge.stores.ome_labels import write_store_labels
from forestbridge.stores.patches import is_featureforest
from forestbridge.stores.verify import ShardProblem, StoreReport, store_facts, verify_store

__all__ = [
    "FEATUREFOREST",
    "FeatureStore",
    "ImageFacts",
    "ShardProblem",
    "StoreReport",
    "create_store",
    "featureforest_settings",
    "is_featureforest",
    "open_store",
    "plan_featureforest",
    "store_facts",
    "verify_store",
    "write_featureforest",
    "write_store_labels",
]
