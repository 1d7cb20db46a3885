"""The candidate store: bit-packed masks in immutable Zarr parts; imports nothing of ours.

Stage one writes it (StoreWriter), stage two reads it (CandidateView at the training size, CandidateStore at native
resolution). schema.py says what a store says about itself, parts.py and views.py how it is laid out.
"""

from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.findings import Damage, Verification
from semires.cache.reader import CandidateStore, StoreInfo
from semires.cache.rewriting import compact_store, drop_images
from semires.cache.schema import SCHEMA_VERSION, Manifest
from semires.cache.verification import verify_store
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

__all__ = [
    "SCHEMA_VERSION",
    "CandidateStore",
    "CandidateView",
    "Candidates",
    "Damage",
    "DamageError",
    "Manifest",
    "StoreError",
    "StoreInfo",
    "StoreWriter",
    "Verification",
    "build_view",
    "compact_store",
    "drop_images",
    "verify_store",
]
