"""ilastik projects in and out."""

from forestbridge.ilastik.project import Project
from forestbridge.ilastik.read import is_project, read_project
from forestbridge.ilastik.write import write_project

__all__ = ["Project", "is_project", "read_project", "write_project"]
