"""Teachers beyond one output: several at once, and outputs kept on disk."""

from hire_jax.teachers.ensemble import RandomTeacher, mean_teacher
from hire_jax.teachers.rows import TeacherRows, save_teacher_rows
from hire_jax.teachers.store import TeacherError, load_teacher, save_teacher

__all__ = ["RandomTeacher", "TeacherError", "TeacherRows", "load_teacher", "mean_teacher", "save_teacher",
           "save_teacher_rows"]
