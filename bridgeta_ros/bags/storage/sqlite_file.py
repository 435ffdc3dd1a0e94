"""SQLite files of rosbag2."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.storage.topic import RecordedTopic, complete_type

_TOPICS, _MESSAGES = {"id", "name", "type", "serialization_format"}, {"id", "topic_id", "timestamp", "data"}


class SqliteFile:
    """An SQLite file of rosbag2, of any version of its tables. Raises BridgeTAError for another database."""

    def __init__(self, path: Path) -> None:
        # A recording that was cut off leaves messages in a second file, which SQLite leaves out of an immutable one.
        log = path.with_name(f"{path.name}-wal")
        immutable = "" if log.exists() and log.stat().st_size else "&immutable=1"
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{immutable}", uri=True)
        columns = self._list_columns("topics")
        if not columns >= _TOPICS or not self._list_columns("messages") >= _MESSAGES:
            self._database.close()
            raise BridgeTAError("is an SQLite database, but not one of rosbag2")
        type_hash = "type_description_hash" if "type_description_hash" in columns else "''"
        definitions = self._read_definitions()
        rows = self._database.execute(f"SELECT id, name, type, serialization_format, {type_hash} FROM topics")
        self._topics = {
            key: RecordedTopic(topic, complete_type(kind), encoding, *definitions.get(kind, ("", b"")), digest or "")
            for key, topic, kind, encoding, digest in rows.fetchall()
        }
        self.topics = list(self._topics.values())
        self.counts: Counter[str] | None = Counter()
        for key, count in self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"):
            if key in self._topics:
                self.counts[self._topics[key].topic] += count
        (start,) = self._database.execute("SELECT min(timestamp) FROM messages").fetchone()
        self.start_ns: int = start or 0

    def _list_columns(self, table: str) -> set[str]:
        """List the columns that a table stores. A view or a computed column could yield anything, without end."""
        stored = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name = ?"
        if self._database.execute(stored, (table,)).fetchone() == (0,):
            return set()
        return {row[1] for row in self._database.execute(f"PRAGMA table_info({table})")}

    def _read_definitions(self) -> dict[str, tuple[str, bytes]]:
        """Read format and text of the message definitions by type; bags of Humble have none."""
        if "encoded_message_definition" not in self._list_columns("message_definitions"):
            return {}
        rows = self._database.execute(
            "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        )
        return {
            kind: (form or "", text if isinstance(text, bytes) else str(text).encode()) for kind, form, text in rows
        }

    def messages(self, names: Collection[str]) -> Iterator[tuple[RecordedTopic, int, bytes]]:
        """See `DataFile`. They come in the order of their times."""
        wanted = [key for key, topic in self._topics.items() if topic.topic in names]
        marks = ",".join("?" * len(wanted))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY timestamp, id"
        for key, time, data in self._database.execute(query, wanted):
            yield self._topics[key], time, data

    def close(self) -> None:
        self._database.close()
