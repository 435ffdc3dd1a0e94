"""Data files are known by their content, and what is none gets advice that fits."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
import zstandard
from bag_fakes import write_bag
from memory_limit import little_memory

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import open_bag


def count_images(path) -> int:
    with open_bag(path) as bag:
        return len(list(bag.raw({"/cam_front/image/compressed"})))


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("a.bag", b"#ROSBAG V2.0\n", r"ROS 1 bag.*rosbags-convert --src a\.bag --dst a"),
        ("a.mcap", b"#ROSBAG V2.0\n", r"ROS 1 bag.*rosbags-convert"),
        ("a.mcap", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        ("a.db3", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        ("a.mcap", b"", "is empty"),
        ("a.mcap", b"PK\x03\x04", "archive.*Unpack"),
        ("a.mcap", b"hello", "not MCAP"),
        ("a.dat", b"hello", "neither MCAP nor SQLite"),
        ("a.mcap.zstd", b"\x28\xb5\x2f\xfd garbage", r"zstd -d a\.mcap\.zstd"),
    ],
)
def test_what_is_no_data_file_gets_advice_that_fits(tmp_path, name, content, advice):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BridgeTAError, match=advice) as error, open_bag(tmp_path / name):
        pass
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_may_have_any_name(tmp_path, storage):
    source = write_bag(tmp_path / "in", 3, storage=storage)
    file = next(f for f in source.iterdir() if f.suffix != ".yaml")
    assert count_images(file.rename(tmp_path / "recording #1 ?.bin")) == 3


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("folder", [True, False])
def test_a_file_compressed_by_zstd_is_read(tmp_path, storage, folder):
    source = write_bag(tmp_path / "in", 3, storage=storage)
    file = next(f for f in source.iterdir() if f.suffix != ".yaml")
    packed = file.with_name(f"{file.name}.zstd")
    packed.write_bytes(zstandard.compress(file.read_bytes()))
    file.unlink()
    metadata = source / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(file.name, packed.name))
    assert count_images(source if folder else packed) == 3


def test_messages_compressed_one_by_one_are_read(tmp_path):
    source = write_bag(tmp_path / "in", 3, storage="sqlite3")
    with sqlite3.connect(next(source.glob("*.db3"))) as database:
        for key, data in database.execute("SELECT id, data FROM messages").fetchall():
            database.execute("UPDATE messages SET data = ? WHERE id = ?", (zstandard.compress(data), key))
    with open_bag(source) as bag:
        found = [bag.decode(topic, data) for topic, _, data in bag.raw({"/cam_front/image/compressed"})]
    assert [message.format for message in found] == ["jpeg"] * 3


def test_what_a_killed_recording_left_in_sqlites_log_is_read(tmp_path):
    source = write_bag(tmp_path / "in", 3, storage="sqlite3")
    database = sqlite3.connect(next(source.glob("*.db3")))
    database.execute("PRAGMA journal_mode = WAL")
    rows = "SELECT topic_id, timestamp + 1, data FROM messages"
    database.execute(f"INSERT INTO messages (topic_id, timestamp, data) {rows}")
    database.commit()
    assert count_images(source) == 6
    database.close()


@pytest.mark.parametrize("size", [9, 40, 2000, -1, -8, -40])
@pytest.mark.parametrize("packed", [False, True])
def test_a_recording_that_was_cut_off_is_called_so(tmp_path, size, packed):
    content = (write_bag(tmp_path / "in", 3) / "in.mcap").read_bytes()[:size]
    path = tmp_path / "cut.mcap"
    path.write_bytes(zstandard.compress(content) if packed else content)
    with pytest.raises(BridgeTAError, match=r"was cut off.*mcap recover") as error, open_bag(path):
        pass
    assert str(error.value).startswith(f"{path}: ")


def test_a_compressed_file_that_was_cut_off_is_no_bag(tmp_path):
    content = zstandard.compress((write_bag(tmp_path / "in", 3) / "in.mcap").read_bytes())
    (tmp_path / "cut.mcap.zstd").write_bytes(content[: len(content) // 2])
    with pytest.raises(BridgeTAError, match=r"cut\.mcap\.zstd: cannot be unpacked .it was cut off"):
        count_images(tmp_path / "cut.mcap.zstd")


def test_a_compressed_file_of_several_frames_is_read_to_its_end(tmp_path):
    content = (write_bag(tmp_path / "in", 3) / "in.mcap").read_bytes()
    frames = [zstandard.compress(content[i : i + 5000]) for i in range(0, len(content), 5000)]
    (tmp_path / "a.mcap.zstd").write_bytes(b"".join(frames))
    assert count_images(tmp_path / "a.mcap.zstd") == 3


def test_a_database_of_something_else_is_no_bag(tmp_path):
    with sqlite3.connect(tmp_path / "other.db3") as database:
        database.execute("CREATE TABLE places (name TEXT)")
    with pytest.raises(BridgeTAError, match="not one of rosbag2"), open_bag(tmp_path / "other.db3"):
        pass


def test_a_bag_may_be_given_by_its_metadata(tmp_path):
    assert count_images(write_bag(tmp_path / "in", 3) / "metadata.yaml") == 3


def test_a_folder_of_bags_names_them(tmp_path):
    write_bag(tmp_path / "all" / "first", 1)
    with pytest.raises(BridgeTAError, match="holds bags, but is none: first"), open_bag(tmp_path / "all"):
        pass


def test_a_folder_of_a_storage_plugin_names_it(tmp_path):
    source = write_bag(tmp_path / "in", 3)
    (source / "in.mcap").write_bytes(b"proprietary")
    metadata = source / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("storage_identifier: mcap", "storage_identifier: acme"))
    with pytest.raises(BridgeTAError, match=r"in\.mcap"), open_bag(source):
        pass
    (source / "in.mcap").rename(source / "in.acme")
    metadata.write_text(metadata.read_text().replace("in.mcap", "in.acme"))
    with pytest.raises(BridgeTAError, match=r"plugin 'acme'.*ros2 bag convert"), open_bag(source):
        pass


def write_zeros(path, size: int) -> None:
    """Write a file of zstd that unpacks to `size` zeros, a multiple of a megabyte."""
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))


def test_a_file_that_unpacks_to_gigabytes_takes_little_memory(tmp_path):
    write_zeros(tmp_path / "a.mcap.zstd", 2**30)
    with little_memory(2**29), pytest.raises(BridgeTAError, match="is not MCAP"), open_bag(tmp_path / "a.mcap.zstd"):
        pass


def test_a_file_that_would_fill_the_disk_is_not_unpacked(tmp_path, monkeypatch):
    write_zeros(tmp_path / "a.mcap.zstd", 2**28)
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free._replace(free=2**27))
    with (
        pytest.raises(BridgeTAError, match=r"more than the 0.1 GB that may be filled"),
        open_bag(tmp_path / "a.mcap.zstd"),
    ):
        pass


@pytest.mark.parametrize("promised", [True, False])
def test_a_message_that_unpacks_to_gigabytes_is_passed_over_and_counted(tmp_path, promised):
    source = write_bag(tmp_path / "in", 3, storage="sqlite3")
    if promised:
        data = zstandard.compress(bytes(2**29))
    else:
        write_zeros(tmp_path / "zeros", 2**30)
        data = (tmp_path / "zeros").read_bytes()
    with sqlite3.connect(next(source.glob("*.db3"))) as database:
        image = "(SELECT min(m.id) FROM messages m JOIN topics t ON t.id = topic_id WHERE t.name LIKE '%front/image%')"
        database.execute(f"UPDATE messages SET data = ? WHERE id = {image}", (data,))
    with little_memory(2**30), open_bag(source) as bag:
        assert len(list(bag.raw({"/cam_front/image/compressed"}))) == 2
        assert any(
            "1 messages on /cam_front/image/compressed were passed over: unpacks to more" in r for r in bag.remarks
        )


def test_a_message_recorded_at_no_time_is_passed_over_and_counted(tmp_path):
    source = write_bag(tmp_path / "in", 3, storage="sqlite3")
    with sqlite3.connect(next(source.glob("*.db3"))) as database:
        database.execute("UPDATE messages SET timestamp = -5 WHERE id = 3")
    with open_bag(source) as bag:
        list(bag.raw(set(bag.topics)))
        list(bag.raw(set(bag.topics)))
        assert [r for r in bag.remarks if "1 messages on" in r and "their times of recording are none" in r]


@pytest.mark.parametrize(
    "messages",
    [
        "VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id, 1 AS topic_id, 1 AS timestamp, zeroblob(1000000) AS data FROM n",
        "TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB AS (zeroblob(900000000)))",
    ],
)
def test_a_database_that_computes_its_messages_is_no_bag(tmp_path, messages):
    with sqlite3.connect(tmp_path / "a.db3") as database:
        database.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute("INSERT INTO topics VALUES (1, '/a', 'std_msgs/msg/String', 'cdr')")
        database.execute(f"CREATE {messages}")
    with pytest.raises(BridgeTAError, match="but not one of rosbag2"), open_bag(tmp_path / "a.db3"):
        pass
