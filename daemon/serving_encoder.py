"""Which encoder the daemon works with: the one of the space that serves, not of the settings.

Where the settings name another one, a change is begun (daemon/jobs/encoder_switch.py) and the
old encoder goes on until it is complete.
"""

from collections.abc import Callable

from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.jobs.encoder_decisions import begin_switch, cancel_switch
from daemon.settings import EncoderSettings
from storage import embeddings, meta, spaces
from storage.engine import Database
from storage.errors import EncoderMismatchError
from storage.names import RUN, format_id
from storage.spaces import DECLINED_KEY, SpaceRow


class ServingEncoder:
    """The network at work; exchanged when another space serves. Not thread-safe.

    Args:
        db: The database.
        settings: The owner's wish.
        wall: Seconds since the epoch.
        report: Takes plain lines for the owner.
    """

    def __init__(
        self,
        db: Database,
        settings: EncoderSettings,
        wall: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._db = db
        self._settings = settings
        self._wall = wall
        self._report = report
        self._cache = settings.cache or registry.default_cache_dir()
        self._next: Encoder | None = None
        registry.provider_of(settings.id)
        with db.read() as connection:
            serving = spaces.serving_space(connection)
        self.current: Encoder = self._open(settings.id if serving is None else serving.encoder)
        """The network at work."""
        self.space_id = self._check(serving)
        """Row of its space."""
        if serving is not None:
            self._heed_settings(serving)

    def make_ready(self, space: SpaceRow) -> None:
        """Load the encoder of a space that will serve soon.

        Raises:
            EncoderError, EncoderNotPreparedError: It cannot be loaded.
            EncoderMismatchError: It makes vectors of another space by now.
        """
        self._drop_next()
        encoder = registry.load(space.encoder, self._cache, self._settings.threads)
        if encoder.space != space.name:
            encoder.close()
            raise _mismatch(space.name, encoder.space)
        self._next = encoder

    def follow(self) -> bool:
        """Change over if another space serves by now; whether it did."""
        with self._db.read() as connection:
            serving = spaces.serving_space(connection)
        if serving is None or serving.id == self.space_id:
            return False
        if self._next is None or self._next.space != serving.name:
            self.make_ready(serving)
        old, self.current, self._next = self.current, self._next or self.current, None
        self.space_id = serving.id
        old.close()
        self._report(f"the encoder is {serving.encoder} from now on")
        return True

    def close(self) -> None:
        """Free the networks."""
        self._drop_next()
        self.current.close()

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.close()
        self._next = None

    def _open(self, encoder_id: str) -> Encoder:
        if not registry.is_prepared(encoder_id, self._cache):
            self._report(f"preparing the encoder {encoder_id} (once, about 10 s)")

            def note(_stage: str, done: int, total: int) -> None:
                share = done / total if total else None
                with self._db.write() as connection:
                    spaces.tell_encoder(connection, encoder_id, None, "preparing", share)

            registry.prepare(encoder_id, self._cache, note)
        return registry.load(encoder_id, self._cache, self._settings.threads)

    def _check(self, serving: SpaceRow | None) -> int:
        """The row of the encoder's space, made when it is the first.

        Raises:
            EncoderMismatchError: The encoder has other weights than its frames were encoded by.
        """
        encoder = self.current
        if serving is not None and serving.name != encoder.space:
            encoder.close()
            raise _mismatch(serving.name, encoder.space)
        with self._db.write() as connection:
            space_id = embeddings.ensure_space(
                connection,
                name=encoder.space,
                encoder=encoder.id,
                weights_sha256=encoder.weights_sha256,
                dim=encoder.dim,
                now=self._wall(),
            )
            spaces.serve_space(connection, spaces.space_of(connection, space_id))
            if spaces.load_switch(connection) is None:
                spaces.tell_encoder(connection, encoder.id, encoder.space, "ready")
        return space_id

    def _heed_settings(self, serving: SpaceRow) -> None:
        """Begin, go on with or end a change, and say so."""
        wanted = self._settings.id
        with self._db.write() as connection:
            switch = spaces.load_switch(connection)
            if switch is not None and switch.undoes is not None:
                self._report(f"going back to the encoder {switch.encoder} in the background")
                return
            declined = meta.get(connection, DECLINED_KEY)
            if wanted == serving.encoder:
                meta.put(connection, DECLINED_KEY, None)
                if cancel_switch(connection) is not None:
                    self._report(f"the settings name {wanted} again: its change is ended")
            elif declined is not None and declined["encoder"] == wanted:
                self._report(
                    f"the settings name the encoder {wanted}, but {format_id(RUN, declined['run'])}"
                    f" was undone: {serving.encoder} goes on (`stillwatch encoders switch`"
                    " changes after all)"
                )
            else:
                begin_switch(connection, wanted, self._wall())
                self._report(
                    f"changing the encoder from {serving.encoder} to {wanted}: every frame is"
                    f" encoded anew in the background, {serving.encoder} serves until then"
                )


def _mismatch(known: str, found: str) -> EncoderMismatchError:
    return EncoderMismatchError(
        f"The frames here were encoded as {known}, the encoder is {found} by now.",
        hint="Put its old weights back, or start another state folder with --state. Other weights"
        " need a name of their own, then stillwatch changes over to them.",
    )
