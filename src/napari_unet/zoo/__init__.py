"""Models for others and of others: packages of the BioImage Model Zoo (bioimage.io), written and read as data."""

from .export import Credit, export_model
from .read import import_model

__all__ = ["Credit", "export_model", "import_model"]
