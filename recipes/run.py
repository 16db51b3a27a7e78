"""Run folders: what a training leaves behind, and how a model comes back from it."""

from __future__ import annotations
