"""Finds the package and the library of this tree when no environment says where they are; Hypothesis' settings."""
import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings/python/src"))
if "DLATTN_LIBRARY" not in os.environ and (ROOT / "build/release/libdlattn.so").exists():
    os.environ["DLATTN_LIBRARY"] = str(ROOT / "build/release/libdlattn.so")

settings.register_profile("dlattn", deadline=None, database=None, print_blob=True, max_examples=80,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.load_profile("dlattn")
