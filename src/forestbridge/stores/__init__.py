"""Feature stores: what an encoder saw in an image, on disk, tile by tile."""

from forestbridge.stores.base import FeatureStore, ImageFacts, create_store, open_store
from forestbridge.stores.ome_labels import write_store_labels
from forestbridge.stores.verify import ShardProblem, StoreReport, store_facts, verify_store

__all__ = [
    "FeatureStore",
    "ImageFacts",
    "ShardProblem",
    "StoreReport",
    "create_store",
    "open_store",
    "store_facts",
    "verify_store",
    "write_store_labels",
]
