"""The owner's settings: one TOML file becomes one frozen `Settings`.

Everything has a default (contract, section 5), so no file is needed. Unknown keys are refused,
with the name of the key: a typo must not silently switch something off.
"""

import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from daemon.path_template import (
    CLUSTER_PATH,
    DUPLICATE_PATH,
    NOVEL_PATH,
    FolderTemplates,
    TemplateError,
    parse_cluster_path,
    parse_duplicate_path,
    parse_novel_path,
    parse_templates,
)
from storage.errors import SettingsError

MOST_BYTES = 1_000_000
"""A settings file of all settings with their comments has 10,000."""

Kind = Literal["fixed", "moving", "archive"]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]  # 30 years: no clock or timer overflows


class Section(BaseModel):
    """A frozen table of the settings file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CameraSettings(Section):
    """One `[[camera]]`: what the owner knows about a camera."""

    root: Path = Field(description="The watched folder of this camera.")
    name: str | None = Field(None, description="Name shown; default: the folder's name.")
    kind: Kind | None = Field(None, description="fixed, moving or archive; default: guessed.")
    timezone: str | None = Field(None, description="IANA zone of zoneless times.")
    pattern: str | None = Field(
        None, description="strptime pattern of the capture time in file names."
    )
    quiet_found: Share | None = Field(
        None, description="As `dedup.quiet_found`, for this camera alone."
    )


class CamerasSettings(Section):
    """`[cameras]`: what holds for all cameras."""

    by_subfolder: bool = Field(False, description="Each first-level subfolder is a camera.")
    timezone: str | None = Field(None, description="IANA zone; default: the machine's.")
    kind: Kind | None = Field(None, description="Kind of every camera that is not described.")


class IngestSettings(Section):
    """`[ingest]`: from a file to a committed row."""

    settle_seconds: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        2.0, description="A file must be unchanged this long before it is read."
    )
    max_settle_seconds: Positive = Field(
        60.0, description="With --once: stop waiting for a file that keeps changing."
    )
    rescan_seconds: Positive = Field(300.0, description="Compare changed folders this often.")
    full_rescan_seconds: Positive = Field(3600.0, description="Compare the whole tree this often.")
    watch: Literal["events", "scan"] = Field(
        "events",
        description="How new files are noticed: by the kernel's events and scans, or by scans "
        "alone. Network file systems are always polled by scans alone.",
    )
    poll_seconds: Annotated[float, Field(ge=0.1)] = Field(
        10.0,
        description="Least time between the scans of a folder without events; a slow scan makes "
        "it longer.",
    )
    ignore: tuple[str, ...] = Field(
        ("csv", "txt", "json", "xml", "xmp", "md", "log", "mp4", "avi", "db"),
        description="Extensions that are never pictures; counted, no row.",
    )
    decode_children: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Decoding processes."
    )
    decode_seconds: Positive = Field(20.0, description="A picture that takes longer is refused.")
    decode_memory_mb: Annotated[int, Field(ge=512)] = Field(
        2048, description="Address space of a decoding process."
    )
    max_megapixels: Positive = Field(120.0, description="Larger pictures are refused unread.")


class EncoderSettings(Section):
    """`[encoder]`: which network describes a picture."""

    id: str = Field("efficientnet_lite0", description="See `stillwatch encoders`.")
    threads: Annotated[int, Field(ge=1, le=64)] = Field(2, description="Inference threads.")
    batch: Annotated[int, Field(ge=1, le=8)] = Field(8, description="Pictures per inference.")
    cache: Path | None = Field(None, description="Folder of the converted networks.")


class ClusteringSettings(Section):
    """`[clustering]`: when and how everything is reclustered."""

    first_at_frames: Annotated[int, Field(ge=2)] = Field(
        100, description="First clustering at this many frames."
    )
    first_after_seconds: Positive = Field(600.0, description="Or after this time.")
    growth_share: Positive = Field(0.1, description="Recluster when frames grew by this share.")
    novel_frames: Annotated[int, Field(ge=1)] = Field(
        200, description="Recluster when this many novel frames piled up."
    )
    nightly_at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(
        "03:10", description="Local time of the nightly recluster."
    )
    min_cluster_size: Annotated[int, Field(ge=2)] = Field(
        15, description="Frames that make a cluster."
    )
    min_samples: Annotated[int, Field(ge=1)] = Field(
        1, description="Neighbours (representatives) of the density estimate."
    )
    collapse_distance: Annotated[float, Field(ge=0, le=0.0032)] = Field(
        0.0018, description="Cosine distance within which a burst counts as one view."
    )
    false_novel_rate: Annotated[float, Field(ge=0.0005, le=0.5)] = Field(
        0.01, description="Promised share of usual frames that are called novel."
    )


class DedupSettings(Section):
    """`[dedup]`: when a frame counts as a near-duplicate."""

    every_seconds: Positive = Field(3600.0, description="Write a dedup plan this often.")
    delay_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0, description="A frame is judged this long after its arrival."
    )
    max_change: Positive = Field(
        2.6, description="Change score up to which a frame is a near-duplicate; lower keeps more."
    )
    max_change_pixels: Positive = Field(
        2.5, description="The same for encoders without a tile map."
    )
    quiet_found: Share | None = Field(
        None,
        description="Share of the quiet frames to find, 0 to 1, as a limit of each camera's own; "
        "never above max_change. Default: as many as max_change finds.",
    )
    keeper: Literal["first", "sharpest", "last", "largest", "medoid"] = Field(
        "sharpest",
        description="Which frame of a run stands for the others, if all of them pass against it.",
    )
    keepers_compared: Annotated[int, Field(ge=1, le=64)] = Field(
        6, description="Latest keepers a frame is compared with."
    )
    max_gap_seconds: Positive = Field(
        3600.0, description="A keeper serves this long after its last match."
    )


class FilingSettings(Section):
    """`[filing]`: where frames are put on disk."""

    enabled: bool = Field(False, description="File frames into FOLDER/stillwatch/ by itself.")
    mode: Literal["move", "hardlink", "copy", "none"] = Field(
        "move", description="What filing does with a file."
    )
    brake_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="Share of a camera whose filed frames may move again unasked."
    )
    brake_files: Annotated[int, Field(ge=1)] = Field(
        1000, description="Most files of one run; most filed frames that move again unasked."
    )
    cluster_path: str = Field(
        CLUSTER_PATH,
        description="Folder below FOLDER/stillwatch/ of frames in clusters. Fields: {cluster} "
        "(name or id), {cluster_id}, {date}, {year}, {month}, {day}, {hour}, {camera}, {state}.",
    )
    novel_path: str = Field(
        NOVEL_PATH, description="The same of novel frames; no {cluster}, no {cluster_id}."
    )
    duplicate_path: str = Field(
        DUPLICATE_PATH,
        description="The same of duplicates: {keeper} (its name and id) instead of {cluster}.",
    )

    @field_validator("cluster_path", "novel_path", "duplicate_path")
    @classmethod
    def _check_template(cls, text: str, info: ValidationInfo) -> str:
        parse = {
            "cluster_path": parse_cluster_path,
            "novel_path": parse_novel_path,
            "duplicate_path": parse_duplicate_path,
        }[str(info.field_name)]
        try:
            parse(text)
        except TemplateError as exc:
            raise _wrong(str(exc)) from exc
        return text

    @model_validator(mode="after")
    def _keep_groups_apart(self) -> Self:
        try:
            parse_templates(self.cluster_path, self.novel_path, self.duplicate_path)
        except TemplateError as exc:
            raise _wrong(str(exc)) from exc
        return self

    @property
    def templates(self) -> FolderTemplates:
        """The three templates, parsed."""
        return parse_templates(self.cluster_path, self.novel_path, self.duplicate_path)


def _wrong(reason: str) -> PydanticCustomError:
    return PydanticCustomError("template", "{reason}", {"reason": reason})


class PruneSettings(Section):
    """`[prune]`: what becomes of duplicates in the end. Nothing is deleted unless `enabled`."""

    enabled: bool = Field(
        False, description="Move old duplicates to the trash, and delete them later."
    )
    trash_after_days: Positive = Field(
        7.0, description="Age at which a duplicate goes to the trash."
    )
    delete_after_days: Positive = Field(
        30.0,
        description="Days in the trash before deletion, by the clock and by the time daemons ran.",
    )
    keep_free_gb: Positive | None = Field(
        None, description="Delete only as long as less than this is free on the disk (10^9 bytes)."
    )
    keep_free_percent: Annotated[float, Field(gt=0, lt=100)] | None = Field(
        None, description="The same as a share of the disk."
    )
    max_gb: Positive | None = Field(
        None, description="Delete only as long as the pictures take more than this (10^9 bytes)."
    )
    max_files_per_run: Annotated[int, Field(ge=1)] = Field(
        1000, description="Most files of one run; the rest follows in the next."
    )
    max_share_per_day: Share = Field(
        0.2,
        description="Share of a camera that is moved to the trash, or deleted, in a day unasked.",
    )
    brake_share: Share = Field(
        0.2, description="A larger share of a camera at once waits for `prune --yes`."
    )
    brake_files: Annotated[int, Field(ge=1)] = Field(
        1000, description="More files of a camera at once wait for `prune --yes`."
    )

    @property
    def has_budget(self) -> bool:
        """Whether the owner set a goal for the disk."""
        return any((self.keep_free_gb, self.keep_free_percent, self.max_gb))


class BackupSettings(Section):
    """`[backup]`: copies of the database, from which a damaged one is restored."""

    enabled: bool = Field(True, description="Make backups by itself.")
    every_hours: Annotated[float, Field(gt=0, le=8760)] = Field(
        24.0, description="Age of the newest backup at which another is made."
    )
    keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        7, description="Backups that are kept; older ones are removed after a new one was checked."
    )
    folder: Path | None = Field(
        None, description="Where they are written. Default: backups in the state folder."
    )


class Settings(Section):
    """All settings; `Settings()` is the documented default.

    `[[camera]]` describes one camera. A single `[camera]` table (the form of the contract's
    `camera.by_subfolder`) means the same as `[cameras]`: TOML has no room for both under one key.
    """

    camera: tuple[CameraSettings, ...] = ()
    cameras: CamerasSettings = CamerasSettings()
    ingest: IngestSettings = IngestSettings()
    encoder: EncoderSettings = EncoderSettings()
    clustering: ClusteringSettings = ClusteringSettings()
    dedup: DedupSettings = DedupSettings()
    filing: FilingSettings = FilingSettings()
    prune: PruneSettings = PruneSettings()
    backup: BackupSettings = BackupSettings()

    @model_validator(mode="before")
    @classmethod
    def _camera_table(cls, data: Any) -> Any:
        """Take a `[camera]` table for `[cameras]`."""
        if isinstance(data, dict) and isinstance(data.get("camera"), dict):
            rest = {key: value for key, value in data.items() if key != "camera"}
            return rest | {"cameras": data.get("cameras", {}) | data["camera"]}
        return data


def default_path(state_dir: Path) -> Path:
    """Where the settings are looked for when `--config` is not given."""
    return state_dir / "stillwatch.toml"


def _read(path: Path) -> str:
    """The text of a settings file.

    Raises:
        OSError: It is absent or cannot be read.
        SettingsError: It is a pipe or device, which might never end, or absurdly large.
        UnicodeDecodeError: It is no text.
    """

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # a pipe that nobody writes to never opens

    with open(path, encoding="utf-8", opener=without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MOST_BYTES:
            raise SettingsError(
                "The settings file is no regular file of at most 1 MB.",
                hint="`stillwatch config example` shows what belongs into it.",
                path=str(path),
            )
        return file.read()


def load_settings(path: Path | None, *, required: bool = False) -> Settings:
    """Read and check a settings file.

    Args:
        path: The file; None gives the defaults.
        required: Whether an absent file is an error (`--config` was given).

    Raises:
        SettingsError: Absent though required, unreadable, no TOML, unknown or wrong key.
    """
    if path is None:
        return Settings()
    try:
        data = tomllib.loads(_read(path))
    except FileNotFoundError:
        if required:
            raise SettingsError(
                f"There is no settings file {path}.",
                hint="`stillwatch config example` writes one.",
                path=str(path),
            ) from None
        return Settings()
    except OSError as exc:
        raise SettingsError(
            f"The settings file cannot be read: {os.strerror(exc.errno or 0)}.", path=str(path)
        ) from exc
    except RecursionError:
        raise SettingsError(
            "The settings file is nested too deeply.", hint="Mend that line.", path=str(path)
        ) from None
    except ValueError as exc:  # no TOML, no UTF-8, or a number of thousands of digits
        raise SettingsError(
            f"The settings file is not valid TOML: {exc}", hint="Mend that line.", path=str(path)
        ) from exc
    try:
        return Settings.model_validate(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"The setting {key} is wrong: {first['msg']}.",
            hint="`stillwatch config example` shows every setting with its default.",
            path=str(path),
        ) from exc
