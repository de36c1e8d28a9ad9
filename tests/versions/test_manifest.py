"""The same bytes are the same digest, and nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from changeover.versions.manifest import Entry, Manifest, digest
from changeover.versions.snapshot import Snapshot, take

NAMES = st.text("abcé-_0", min_size=1, max_size=8).map(lambda name: f"prompts/{name}.md")
FILES = st.dictionaries(NAMES, st.binary(max_size=64), max_size=6)


@given(FILES, st.randoms())
def test_order_takes_no_part_in_the_digest(files: dict[str, bytes], random: Random) -> None:
    shuffled = list(files.items())
    random.shuffle(shuffled)
    assert digest(Manifest.of(files)) == digest(Manifest.of(dict(shuffled)))


@given(FILES, FILES)
def test_digests_are_equal_only_for_equal_files(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (digest(Manifest.of(one)) == digest(Manifest.of(other))) == (one == other)


@given(FILES.filter(bool), st.data())
def test_any_byte_or_path_that_differs_changes_the_digest(files: dict[str, bytes], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(files)))
    edited = {**files, path: files[path] + b"!"}
    renamed = {(f"{name}x" if name == path else name): content for name, content in files.items()}
    assert len({digest(Manifest.of(each)) for each in (files, edited, renamed)}) == 3


@settings(max_examples=15, deadline=None)
@given(FILES, st.integers(0, 2_000_000_000))
def test_a_folder_has_the_digest_of_its_bytes_whatever_its_times(files: dict[str, bytes], seconds: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "prompts").mkdir()
        for path, content in files.items():
            (folder / path).write_bytes(content)
            os.utime(folder / path, (seconds, seconds))
        assert take(folder).digest == Snapshot.of(files).digest


def test_the_digest_of_a_format_stays_as_it_is() -> None:
    manifest = Manifest.of({"agents.yaml": b"agents: {}\n", "prompts/a.md": b"hello"})
    assert digest(manifest) == digest(Manifest.from_json(json.loads(json.dumps(manifest.to_json()))))
    assert digest(manifest) == "05b84494ba74278c44ed38955d1d13b57bbe5af178c2f3ec358c3d7e84df3470"


def test_a_file_that_could_not_be_read_changes_the_digest() -> None:
    assert digest(Manifest.of({}, {"a": Entry("", 0, "unreadable")})) != digest(Manifest.of({}))


def test_a_manifest_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2"):
        Manifest.from_json({"format": 2, "files": {}})
