"""Message definitions of a bag: parsed for the types that are asked for, and built in for those it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.storage.foxglove import PROTOBUF, TRANSLATIONS, load_message_class
from bridgeta_ros.bags.storage.topic import RecordedTopic
from bridgeta_ros.pipeline.messages import RosbagsFactory

_ROS2_ENCODINGS = ("cdr", "")  # some writers leave it out
_MOST_ELEMENTS = 100_000  # in arrays of a fixed size
_IDL_HEADER = f"{'=' * 80}\nIDL: "


class Decoder:
    """Deserialises messages by the definitions that their data files hold.

    Each definition has a type store of its own, so topics may disagree about a type. `remarks` says for whom a
    definition could not be used as recorded. `hashes` are those of the types by topic, where data files have none.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._classes: dict[tuple[str, bytes], Callable[[], Any]] = {}  # of protobuf messages
        self._stores: dict[tuple[str, bytes, str], Typestore] = {}
        self.remarks: list[str] = []

    def decode(self, topic: RecordedTopic, data: bytes) -> Any:
        """Deserialise a message. Raises BridgeTAError for a type without definition and for data that do not fit."""
        try:
            if topic.encoding == PROTOBUF:
                return self._translate(topic, data)
            store = self._find_store(topic)
            return store.deserialize_cdr(data, topic.msgtype)
        except BridgeTAError:
            raise
        except Exception as error:  # on damaged bytes the library raises whatever it stumbles over
            raise BridgeTAError(f"a message on {topic.topic} is not a valid {topic.msgtype}") from error

    def encode(self, topic: RecordedTopic, data: bytes) -> bytes | memoryview:
        """Return a message as ROS 2 serialises it, which most are already. Raises BridgeTAError as `decode` does."""
        if topic.encoding != PROTOBUF:
            return data
        return load_standard_types().serialize_cdr(self.decode(topic, data), TRANSLATIONS[topic.msgtype][0])

    def _translate(self, topic: RecordedTopic, data: bytes) -> Any:
        key = topic.msgtype, topic.definition
        if key not in self._classes:
            self._classes[key] = load_message_class(topic.msgtype, topic.definition)
        message = self._classes[key]()
        message.ParseFromString(data)
        return TRANSLATIONS[topic.msgtype][1](RosbagsFactory(load_standard_types()), message)

    def _find_store(self, topic: RecordedTopic) -> Typestore:
        type_hash = topic.type_hash or self._hashes.get(topic.topic, "")
        key = (topic.msgtype, topic.definition, type_hash)
        if key not in self._stores:
            self._stores[key] = self._make_store(topic, type_hash)
        return self._stores[key]

    def _make_store(self, topic: RecordedTopic, type_hash: str) -> Typestore:
        own, standard = topic.definition.strip() != b"", load_standard_types()
        try:
            store = _parse(topic) if own else standard
            # The hash needs each nested type, so it also finds definitions that lack some.
            digest = store.hash_rihs01(topic.msgtype)
            if topic.msgtype in standard.fielddefs and digest != standard.hash_rihs01(topic.msgtype):
                _require_fields(store, standard)
        except Exception as error:  # as in decode
            if not own or topic.msgtype not in standard.fielddefs:
                what = "cannot be used" if own else "is not in the bag, and the type is no standard one"
                raise BridgeTAError(
                    f"the definition of {topic.msgtype} on {topic.topic} {what}",
                    fix="Record the bag again in MCAP, where that package is installed",
                ) from error
            self.remarks.append(f"the bag's definition of {topic.msgtype} cannot be used: the standard one is")
            store = standard
            digest = store.hash_rihs01(topic.msgtype)
        if type_hash.startswith("RIHS01_") and type_hash != digest:
            where = "the bag's definition" if own else "the standard definition"
            self.remarks.append(
                f"{topic.topic} was recorded with another {topic.msgtype} than {where}, by its type hash: "
                "if its values look wrong, record it again with one version of that package"
            )
        return store


def _require_fields(store: Typestore, standard: Typestore) -> None:
    """Raise ValueError for types that lack a field of the standard types of their names: we would look for it."""
    for name in store.fielddefs.keys() & standard.fielddefs.keys():
        fields = store.fielddefs[name][1]
        if any(field not in fields for field in standard.fielddefs[name][1]):
            raise ValueError(f"{name} lacks a field")


def find_ros_type(topic: RecordedTopic) -> str | None:
    """Return the ROS type of a topic's messages; None if they are of another kind and have no translation."""
    if topic.encoding == PROTOBUF:
        return TRANSLATIONS[topic.msgtype][0] if topic.msgtype in TRANSLATIONS else None
    return topic.msgtype if topic.encoding in _ROS2_ENCODINGS else None


@cache
def load_standard_types() -> Typestore:
    return get_typestore(Stores.ROS2_HUMBLE)


def _parse(topic: RecordedTopic) -> Typestore:
    """Parse the definition of a topic's type and of those nested in it."""
    text = topic.definition.decode()
    if topic.definition_format == "ros2msg":
        types = get_types_from_msg(text, topic.msgtype)
    elif topic.definition_format in ("ros2idl", "omgidl"):
        types = {}
        sections = text.split(f"{'=' * 80}\n")[1:] if text.startswith(_IDL_HEADER) else [f"\n{text}"]
        for section in sections:
            types.update(get_types_from_idl(section.partition("\n")[2]))
    else:
        raise ValueError(f"definitions in {topic.definition_format!r}")
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    if _count_elements(store, topic.msgtype) > _MOST_ELEMENTS:
        raise ValueError(f"more than {_MOST_ELEMENTS:,} texts and messages in arrays of a fixed size")
    return store


def _count_elements(store: Typestore, msgtype: str, known: dict[str, int] | None = None) -> int:
    """Count what each message of a type has to hold, numbers in an array as one: the library makes all of it first.

    A sequence counts as one element. Raises RecursionError for a type that is part of itself.
    """
    known = {} if known is None else known
    if msgtype not in known:
        total = 0
        for _, (node, details) in store.fielddefs[msgtype][1]:
            (kind, name), size = details if node in (Nodetype.ARRAY, Nodetype.SEQUENCE) else ((node, details), 1)
            size = 1 if node is Nodetype.SEQUENCE else size
            if kind is Nodetype.NAME:
                total += size * _count_elements(store, name, known)
            else:
                total += size if name[0] == "string" else 1
        known[msgtype] = total
    return known[msgtype]
