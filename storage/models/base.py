"""What all tables share: the declarative base and the column types of our own."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Dialect,
    Float,
    Integer,
    LargeBinary,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase

BigId = BigInteger().with_variant(Integer, "sqlite")


def storable_time(nanoseconds: int) -> int:
    """A file time as 64 signed bits hold it: years 1677 to 2262, others become the nearest."""
    return max(-(2**63), min(2**63 - 1, nanoseconds))


class FileTime(TypeDecorator[int]):
    """Nanoseconds since the epoch; a file may claim the year 2400."""

    impl = BigId
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """See `storable_time`."""
        return None if value is None else storable_time(value)


class FileNumber(TypeDecorator[int]):
    """An inode or device: 64 unsigned bits (network filesystems use them all), kept as signed."""

    impl = BigId
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Two's complement."""
        return value - 2**64 if value is not None and value >= 2**63 else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        """The number that stat(2) gave."""
        return value + 2**64 if value is not None and value < 0 else value


class Base(DeclarativeBase):
    """Declarative base; maps Python types to column types."""

    type_annotation_map = {
        bytes: LargeBinary,
        str: Text,
        float: Float,
        bool: Boolean,
        int: BigId,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }
