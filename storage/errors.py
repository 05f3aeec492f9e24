"""The error tree of the whole program; a class is a policy, so no handler looks at text.

StillwatchError                carries code, summary, hint, path, exit_code
  ItemError                    this file only: record the outcome, go on
    UnusableFileError          whole but no picture: the frame becomes `rejected`
    FileNotReadyError          cannot be read now: the frame stays `pending`, retried for ever
    VanishedFileError          gone before it was read
    FilingError                a file operation was refused; the file stays where it is
      TargetExistsError        the destination is taken
      ChangedFileError         the file is not the one that was planned for
  NotDurableError              a disk did not confirm what was written: stop moving files
  RootOfflineError             the camera folder is absent or another one: conclude nothing
    RootBusyError              another stillwatch changes files there: change nothing
  UsageError                   wrong flag or argument                          (exit 2)
    SettingsError              damaged settings file                           (exit 2)
    FolderError                absent or forbidden folder                      (exit 2)
  NotFoundError                no such frame, cluster or run                   (exit 1)
  ConflictError                refused: something later depends on it          (exit 1)
  NoStateError                 no database yet                                 (exit 10)
  LockedError                  another process holds the lock                  (exit 11)
  DiskFullError                too little room to work safely                  (exit 12)
  DatabaseBusyError            another program keeps the database locked       (exit 11)
  NewerSchemaError             the database was written by a newer version     (exit 13)
  EncoderMismatchError         vectors of another embedding space              (exit 13)
  DamagedDatabaseError         the database fails its own checks               (exit 1)
  EncoderError                 a network cannot be read, built or run          (exit 1)
    EncoderNotPreparedError    its converted form is absent, damaged or another's
"""


class StillwatchError(Exception):
    """Base of every expected error; `summary` says what, `hint` what to do about it."""

    code = "failed"
    exit_code = 1

    def __init__(self, summary: str, *, hint: str = "", path: str | None = None) -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint
        self.path = path

    def as_json(self) -> dict[str, object]:
        """The `error` object of the command line's JSON."""
        return {"code": self.code, "summary": self.summary, "hint": self.hint, "path": self.path}


class ItemError(StillwatchError):
    """One file only: its outcome is recorded and the work goes on."""

    code = "item"
    exit_code = 3


class UnusableFileError(ItemError):
    """The file is whole but no usable picture; its frame becomes `rejected`."""

    code = "unusable_file"


class FileNotReadyError(ItemError):
    """The file cannot be examined now (EACCES, EIO, empty); its frame stays `pending`."""

    code = "file_not_ready"


class VanishedFileError(ItemError):
    """The file was gone before it could be read."""

    code = "vanished"


class FilingError(ItemError):
    """A file operation was refused or failed; the file is where it was."""

    code = "filing"


class TargetExistsError(FilingError):
    """The destination is taken by another file; nothing was overwritten."""

    code = "target_exists"


class ChangedFileError(FilingError):
    """The file on disk is not the one that the plan was made for."""

    code = "changed_file"


class OneFileError(FilingError):
    """A duplicate and its keeper are two names of one file: both are left alone."""

    code = "one_file"


class NotDurableError(StillwatchError):
    """fsync failed: the disk may or may not hold the change; no further file is touched."""

    code = "not_durable"


class RootOfflineError(StillwatchError):
    """The camera folder is absent, or another filesystem is mounted there."""

    code = "root_offline"


class RootBusyError(RootOfflineError):
    """Another process files pictures in this camera folder."""

    code = "root_busy"


class UsageError(StillwatchError):
    """A wrong flag or argument."""

    code = "usage"
    exit_code = 2


class SettingsError(UsageError):
    """The settings file cannot be used."""

    code = "settings"


class FolderError(UsageError):
    """A folder is absent or forbidden."""

    code = "folder"


class NotFoundError(StillwatchError):
    """No such frame, cluster, run or request."""

    code = "not_found"


class ConflictError(StillwatchError):
    """Refused because something later depends on it."""

    code = "conflict"


class NoStateError(StillwatchError):
    """There is no database in the state folder yet."""

    code = "no_state"
    exit_code = 10


class LockedError(StillwatchError):
    """Another process holds the lock of this state folder."""

    code = "locked"
    exit_code = 11


class DiskFullError(StillwatchError):
    """Too little room on the disk to go on safely."""

    code = "disk_full"
    exit_code = 12


class DatabaseBusyError(StillwatchError):
    """Another program holds the database's write lock for longer than is waited; try again."""

    code = "database_busy"
    exit_code = 11


class NewerSchemaError(StillwatchError):
    """The database was written by a newer version."""

    code = "newer_schema"
    exit_code = 13


class EncoderMismatchError(StillwatchError):
    """Vectors of two embedding spaces would meet."""

    code = "encoder_mismatch"
    exit_code = 13


class DamagedDatabaseError(StillwatchError):
    """The database fails its integrity check; nothing is moved or pruned."""

    code = "damaged_database"


class EncoderError(StillwatchError):
    """A network's weights or model file cannot be read, built, converted or run."""

    code = "encoder"


class EncoderNotPreparedError(EncoderError):
    """The converted network is not in the cache, is damaged, or is of other weights."""

    code = "encoder_not_prepared"
